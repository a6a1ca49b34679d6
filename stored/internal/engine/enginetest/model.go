package enginetest

import (
	"errors"
	"fmt"
	"sort"
	"testing"

	"pgregory.net/rapid"

	"github.com/quartet-kv/quartet/stored/internal/engine"
)

// naive is the plainest multi-version map: all rows, by key and stamp.
type naive struct {
	rows  map[string]map[engine.Stamp]string
	floor engine.Stamp
}

func (n *naive) set(key, value string, s engine.Stamp) {
	if n.rows[key] == nil {
		n.rows[key] = make(map[engine.Stamp]string)
	}
	n.rows[key][s] = value
}

func (n *naive) get(key string, s engine.Stamp) (string, engine.Stamp, bool) {
	best, found := engine.Stamp(0), false
	for v := range n.rows[key] {
		if v <= s && (!found || v > best) {
			best, found = v, true
		}
	}
	return n.rows[key][best], best, found
}

func (n *naive) iterate(o engine.IterOptions) []string {
	var keys []string
	for key := range n.rows {
		if key >= string(o.Lower) && (o.Upper == nil || key < string(o.Upper)) {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	if o.Reverse {
		sort.Sort(sort.Reverse(sort.StringSlice(keys)))
	}
	var out []string
	for _, key := range keys {
		if value, s, ok := n.get(key, o.At); ok {
			out = append(out, fmt.Sprintf("%s=%s@%d", key, value, s))
		}
	}
	return out
}

// purge removes the versions that are superseded at floor, and returns them.
func (n *naive) purge(floor engine.Stamp) []engine.Version {
	var out []engine.Version
	for key, versions := range n.rows {
		_, newest, ok := n.get(key, floor)
		for s := range versions {
			if ok && s < newest {
				delete(versions, s)
				out = append(out, engine.Version{Key: []byte(key), Stamp: s})
			}
		}
	}
	n.floor = floor
	return out
}

// modelRun is an engine and a naive one that must agree.
type modelRun struct {
	t      testing.TB
	disk   Disk
	e      engine.Engine
	naive  naive
	stamp  engine.Stamp
	synced engine.Stamp
	since  []engine.Row // the log since the Sync, for replay
}

func model(t *testing.T, d Disk) {
	m := &modelRun{t: t, disk: d, naive: naive{rows: make(map[string]map[engine.Stamp]string)}, e: d.Open(t)}
	defer func() { mustClose(t, m.e) }()
	key := rapid.StringMatching(`[ab]{0,3}`)
	// One engine serves all checks: opening one is what costs.
	rapid.Check(t, func(rt *rapid.T) {
		m.t = t
		rt.Repeat(map[string]func(*rapid.T){
			"commit": func(rt *rapid.T) { m.commit(rt, key) },
			"get":    func(rt *rapid.T) { m.get(rt, key) },
			"range":  func(rt *rapid.T) { m.iterate(rt, key) },
			"sync":   func(rt *rapid.T) { m.sync() },
			"purge":  func(rt *rapid.T) { m.purge(rt) },
			"reopen": func(rt *rapid.T) { m.reopen(rt) },
		})
	})
}

func (m *modelRun) commit(rt *rapid.T, key *rapid.Generator[string]) {
	n := rapid.IntRange(0, 8).Draw(rt, "commands")
	var rows []engine.Row
	for range n {
		m.stamp++
		for _, k := range rapid.SliceOfNDistinct(key, 0, 3, rapid.ID[string]).Draw(rt, "keys") {
			value := rapid.StringN(0, 20, -1).Draw(rt, "value")
			rows = append(rows, row(k, value, m.stamp))
			m.naive.set(k, value, m.stamp)
		}
	}
	m.since = append(m.since, rows...)
	mustCommit(m.t, m.e, m.stamp, rows...)
}

// at draws a stamp that may be read.
func (m *modelRun) at(rt *rapid.T) engine.Stamp {
	return engine.Stamp(rapid.Uint64Range(uint64(m.naive.floor), uint64(m.stamp)+2).Draw(rt, "at"))
}

func (m *modelRun) get(rt *rapid.T, key *rapid.Generator[string]) {
	k, s := key.Draw(rt, "key"), m.at(rt)
	want, wantStamp, ok := m.naive.get(k, s)
	got, gotStamp, err := m.e.Get([]byte(k), s)
	if !ok && errors.Is(err, engine.ErrNotFound) {
		return
	}
	if !ok || err != nil || string(got) != want || gotStamp != wantStamp {
		rt.Fatalf("get %q@%d = %q@%d, %v, want %q@%d %v", k, s, got, gotStamp, err, want, wantStamp, ok)
	}
}

func (m *modelRun) iterate(rt *rapid.T, key *rapid.Generator[string]) {
	o := engine.IterOptions{Lower: []byte(key.Draw(rt, "lower")), At: m.at(rt), Reverse: rapid.Bool().Draw(rt, "reverse")}
	if rapid.Bool().Draw(rt, "bounded") {
		o.Upper = []byte(key.Draw(rt, "upper"))
	}
	got, want := collect(m.t, m.e, o), m.naive.iterate(o)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		rt.Fatalf("iterate %q..%q at %d, reverse %v\n got %v\nwant %v", o.Lower, o.Upper, o.At, o.Reverse, got, want)
	}
}

func (m *modelRun) sync() {
	if pos := mustSync(m.t, m.e); pos != at(m.stamp) && m.stamp != 0 {
		m.t.Fatalf("sync returned %v, want %v", pos, at(m.stamp))
	}
	m.synced, m.since = m.stamp, nil
}

func (m *modelRun) purge(rt *rapid.T) {
	floor := engine.Stamp(rapid.Uint64Range(uint64(m.naive.floor), uint64(m.synced)).Draw(rt, "floor"))
	if floor < m.naive.floor {
		return
	}
	versions := m.naive.purge(floor)
	if rapid.Bool().Draw(rt, "unnamed") {
		versions = nil // the engine may keep or drop them
	}
	if err := m.e.Purge(floor, versions); err != nil {
		rt.Fatalf("purge at %d: %v", floor, err)
	}
}

// reopen starts a new life at the synced position and replays. It costs a
// hundred times what the others do, so it is rare.
func (m *modelRun) reopen(rt *rapid.T) {
	if rapid.IntRange(0, 15).Draw(rt, "reopen") != 0 {
		return
	}
	mustClose(m.t, m.e)
	m.e = m.disk.Open(m.t)
	if got := m.e.Synced().Stamp; got != m.synced {
		rt.Fatalf("synced stamp %d after a reopen, want %d", got, m.synced)
	}
	mustCommit(m.t, m.e, m.stamp, m.since...)
}
