package badger

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// killDir names the directory to a child process of TestKill.
const killDir = "QUARTET_ENGINE_KILL_DIR"

// rowsOf is what the command of a stamp writes: overwrites of few keys, keys of
// its own, and now and then a large value.
func rowsOf(s engine.Stamp) []engine.Row {
	rows := []engine.Row{
		{Key: key(s % 50), Value: value(s), Stamp: s},
		{Key: fmt.Appendf(nil, "own%08d", s), Value: value(s), Stamp: s},
	}
	if s%97 == 0 {
		large := make([]byte, chunkBytesMax*2+int(s))
		for i := range large {
			large[i] = byte(uint64(i) * uint64(s))
		}
		rows = append(rows, engine.Row{Key: []byte("large"), Value: large, Stamp: s})
	}
	return rows
}

// TestKill writes in a child process, kills it at any moment, and looks at what
// the next life finds: all that was synced, and a replay that reaches the same.
func TestKill(t *testing.T) {
	if dir := os.Getenv(killDir); dir != "" {
		killed(dir)
		return
	}
	lives := 12
	if testing.Short() {
		lives = 3
	}
	dir := t.TempDir()
	var promised, purged engine.Stamp
	for life := range lives {
		promised = max(promised, oneLife(t, dir))
		e := mustOpen(t, dir)
		synced := e.Synced()
		if synced.Stamp < promised || synced.Stamp > 0 && synced != position(synced.Stamp) {
			t.Fatalf("life %d: synced %v, promised %d", life, synced, promised)
		}
		for s := synced.Stamp + 1; s < synced.Stamp+100; s++ { // replay over what is left
			if err := e.Commit(position(s), rowsOf(s)); err != nil {
				t.Fatal(err)
			}
		}
		purged = max(purged, e.floor())
		expect(t, e, synced.Stamp, purged)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d stamps synced, purged below %d", promised, purged)
}

// oneLife runs a child until it has synced at least once, kills it some time
// after, and returns the last stamp that it promised.
func oneLife(t *testing.T, dir string) engine.Stamp {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$", "-test.count=1")
	cmd.Env = append(os.Environ(), killDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan engine.Stamp)
	go func() {
		defer close(lines)
		for r := bufio.NewScanner(out); r.Scan(); {
			if s, err := strconv.ParseUint(r.Text(), 10, 64); err == nil {
				lines <- engine.Stamp(s)
			}
		}
	}()
	last, first := engine.Stamp(0), true
	for s := range lines {
		last = s
		if first {
			first = false
			time.AfterFunc(time.Duration(rand.IntN(400))*time.Millisecond, func() { cmd.Process.Kill() })
		}
	}
	if err := cmd.Wait(); err == nil || last == 0 {
		t.Fatalf("the child ended by itself (%v), having promised %d", err, last)
	}
	return last
}

// killed is the child: it continues from where the store stands, and says what
// it has synced.
func killed(dir string) {
	err := func() error {
		e, err := Open(dir, SmallConfig(), slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		var syncing chan error // nil while no Sync runs
		for s := e.Synced().Stamp + 1; ; s++ {
			if err := e.Commit(position(s), rowsOf(s)); err != nil {
				return err
			}
			if s%200 == 0 && syncing == nil {
				done := make(chan error, 1)
				syncing = done
				go func() { done <- syncAndPurge(e, os.Stdout) }()
			}
			select {
			case err := <-syncing:
				if err != nil {
					return err
				}
				syncing = nil
			default:
			}
		}
	}()
	fmt.Fprintln(os.Stderr, "child:", err)
	os.Exit(3)
}

// syncAndPurge syncs, says so, and purges what the few keys held long before.
func syncAndPurge(e *Engine, out io.Writer) error {
	pos, err := e.Sync()
	if err != nil {
		return err
	}
	fmt.Fprintln(out, pos.Stamp)
	if pos.Stamp < 1000 {
		return nil
	}
	floor := pos.Stamp - 500
	var versions []engine.Version
	for s := floor - 400; s < floor-50; s++ {
		versions = append(versions, engine.Version{Key: key(s % 50), Stamp: s})
	}
	return e.Purge(floor, versions)
}

// expect reads what a store at stamp s must hold.
func expect(t *testing.T, e *Engine, s, floor engine.Stamp) {
	t.Helper()
	for a := engine.Stamp(1); a <= s; a++ {
		got, at, err := e.Get(fmt.Appendf(nil, "own%08d", a), s)
		if err != nil || at != a || string(got) != string(value(a)) {
			t.Fatalf("own row of %d at %d (floor %d): %.20q@%d, %v", a, s, floor, got, at, err)
		}
	}
	for back := range engine.Stamp(3) {
		at := s - back*40
		if at < floor || at > s || at < 50 {
			continue
		}
		newest := make(map[string]engine.Row)
		for a := at - 49; a <= at; a++ {
			newest[string(key(a%50))] = rowsOf(a)[0]
		}
		for k, want := range newest {
			got, stamp, err := e.Get([]byte(k), at)
			if err != nil || stamp != want.Stamp || string(got) != string(want.Value) {
				t.Fatalf("%s at %d: %.20q@%d, %v, want %d", k, at, got, stamp, err, want.Stamp)
			}
		}
	}
	if large := s / 97 * 97; large > 0 {
		got, at, err := e.Get([]byte("large"), s)
		if err != nil || at != large || string(got) != string(rowsOf(large)[2].Value) {
			t.Fatalf("large at %d: %d bytes@%d, %v, want @%d", s, len(got), at, err, large)
		}
	}
}
