package split

import (
	"slices"
	"testing"
)

func TestTableKeepsCommandLines(t *testing.T) {
	dir := t.TempDir()
	if rows, err := ReadTable(dir); err != nil || rows != nil {
		t.Fatalf("no table: %v, %v", rows, err)
	}
	want := []Row{
		{"stored-1", 41, "127.0.0.1:1", []string{"/a b/quartet", "stored", "--data-dir", "/it's/here", ""}},
		{"nats", 42, "127.0.0.1:2", []string{"quartet", "nats", "--listen=127.0.0.1:2"}},
	}
	if err := writeTable(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadTable(dir)
	if err != nil || len(got) != len(want) {
		t.Fatalf("got %v, %v", got, err)
	}
	for i := range want {
		if got[i].Name != want[i].Name || got[i].PID != want[i].PID || got[i].Address != want[i].Address || !slices.Equal(got[i].Command, want[i].Command) {
			t.Errorf("row %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestAddressesAreKept(t *testing.T) {
	a := newAddresses([]Row{{Name: "stored-1", Address: "127.0.0.1:7"}})
	defer a.release()
	kept, err := a.of("stored-1")
	if err != nil || kept != "127.0.0.1:7" {
		t.Fatalf("got %q, %v", kept, err)
	}
	first, err := a.of("stored-2")
	if err != nil {
		t.Fatal(err)
	}
	if second, err := a.of("stored-3"); err != nil || second == first {
		t.Fatalf("two processes share %q (%v)", second, err)
	}
	if again, _ := a.of("stored-2"); again != first {
		t.Fatalf("address moved from %q to %q", first, again)
	}
}
