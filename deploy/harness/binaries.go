package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/quartet-kv/quartet/services/invariant"
)

// ErrUnavailable is returned by Binaries.Of when the program for a kind cannot
// be had on this machine; a test skips on it (and fails in CI).
var ErrUnavailable = errors.New("program not available")

// Instrumented says that Quartet is built with the race detector or with the
// costly checks, since the caller is: no time limit of its promises applies.
const Instrumented = raceEnabled || invariant.On

const (
	quartetPackage = "github.com/quartet-kv/quartet/deploy/cmd/quartet"
	deployModule   = "github.com/quartet-kv/quartet/deploy"
)

// Binaries finds or builds the program of each kind, each at most once.
// It is safe for concurrent use.
type Binaries struct {
	// Quartet, Oracle: a program to use instead of building one.
	Quartet, Oracle string
	// Fetch lets the build of the oracle download etcd's modules. Without it an
	// oracle whose modules are not in the module cache is unavailable.
	Fetch bool

	dir string
	mu  struct {
		sync.Mutex
		built map[string]built
	}
}

type built struct {
	path string
	err  error
}

// NewBinaries returns Binaries that build into dir. QUARTET_BINARY and
// ORACLE_BINARY in the environment name programs to use instead.
func NewBinaries(dir string) *Binaries {
	b := &Binaries{dir: dir, Quartet: os.Getenv("QUARTET_BINARY"), Oracle: os.Getenv("ORACLE_BINARY")}
	b.mu.built = map[string]built{}
	return b
}

// Of returns the program that serves kind k. Its error wraps ErrUnavailable
// when the machine lacks it or it does not build.
func (b *Binaries) Of(ctx context.Context, k Kind) (string, error) {
	name := "quartet"
	if !k.Quartet() {
		name = string(k)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if done, ok := b.mu.built[name]; ok {
		return done.path, done.err
	}
	path, err := b.find(ctx, k)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %s: %w", ErrUnavailable, k, err)
	}
	b.mu.built[name] = built{path, err}
	return path, err
}

func (b *Binaries) find(ctx context.Context, k Kind) (string, error) {
	switch {
	case k.Quartet() && b.Quartet != "":
		return b.Quartet, nil
	case k.Quartet():
		return b.buildQuartet(ctx)
	case k == Etcd37 && b.Oracle != "":
		return b.Oracle, nil
	case k == Etcd37:
		return b.buildOracle(ctx)
	default:
		return exec.LookPath("etcd")
	}
}

// buildQuartet builds with the race detector and the invariants when the caller
// was built with them, so that a test run checks the servers too.
func (b *Binaries) buildQuartet(ctx context.Context) (string, error) {
	out := filepath.Join(b.dir, "quartet")
	args := []string{"build", "-o", out}
	if raceEnabled {
		args = append(args, "-race")
	}
	if invariant.On {
		args = append(args, "-tags", "invariants")
	}
	return out, run(ctx, "", nil, "go", append(args, quartetPackage)...)
}

// buildOracle builds outside the workspace: the oracle is etcd with the
// dependencies it was released with.
func (b *Binaries) buildOracle(ctx context.Context) (string, error) {
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", deployModule)
	root, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("find module %s: %w", deployModule, err)
	}
	env := []string{"GOWORK=off"}
	if !b.Fetch {
		env = append(env, "GOPROXY=off")
	}
	out := filepath.Join(b.dir, "oracle")
	dir := filepath.Join(strings.TrimSpace(string(root)), "oracle")
	return out, run(ctx, dir, env, "go", "build", "-o", out, ".")
}

func run(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, lastLines(string(out), 20))
	}
	return nil
}
