package acceptance

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestEtcdctl runs the scripts of testdata/etcdctl: what an operator types.
// In a script, etcdctl speaks to all endpoints and $P is a key prefix of the
// script's own.
func TestEtcdctl(t *testing.T) {
	if _, err := exec.LookPath("etcdctl"); err != nil {
		if inCI() {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	scripts, err := filepath.Glob("testdata/etcdctl/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	onEach(t, func(t *testing.T, tg *target) {
		for _, script := range scripts {
			// One at a time, in a subtest that waits for it: a script that
			// compacts would take history from under the others.
			t.Run("script", func(t *testing.T) { runScript(t, tg, script) })
		}
	})
}

func runScript(t *testing.T, tg *target, script string) {
	testscript.Run(t, testscript.Params{
		Files:    []string{script},
		Deadline: time.Now().Add(testWithin),
		Condition: func(cond string) (bool, error) {
			if cond != "full" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			return *fullFlag, nil
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("ETCDCTL_API", "3")
			env.Setenv("ETCDCTL_ENDPOINTS", strings.Join(tg.Endpoints(), ","))
			env.Setenv("ENDPOINT", tg.Endpoints()[0])
			env.Setenv("P", fmt.Sprintf("etcdctl/%d/", tg.scenes.Add(1)))
			env.Setenv("MEMBERS", fmt.Sprint(len(tg.Members())))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// revision [NAME]: sets $NAME (REV) to the current revision.
			"revision": func(ts *testscript.TestScript, _ bool, args []string) {
				resp, err := tg.client.Get(context.Background(), "revision")
				ts.Check(err)
				ts.Setenv(append(args, "REV")[0], fmt.Sprint(resp.Header.Revision))
			},
			// expand file: replaces the variables in it.
			"expand": func(ts *testscript.TestScript, _ bool, args []string) {
				text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
			},
			// waitfile file text: waits until the file holds the text.
			"waitfile": func(ts *testscript.TestScript, _ bool, args []string) {
				waitFile(ts, args[0], args[1])
			},
		},
	})
}

// waitFile waits until a file of the script holds text.
func waitFile(ts *testscript.TestScript, name, text string) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(responseWithin)
	for {
		got, err := os.ReadFile(ts.MkAbs(name))
		if err == nil && strings.Contains(string(got), text) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("%s does not hold %q within %v: %v\n%s", name, text, responseWithin, err, got)
		}
	}
}
