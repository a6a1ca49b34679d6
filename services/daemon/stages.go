package daemon

import (
	"context"
	"errors"
	"sync"
)

// Stage is what starts and stops together.
type Stage []func(context.Context) error

// RunStages runs every stage at once and stops them in reverse order: when ctx
// ends, or any function returns, the last stage is cancelled and waited for
// before the one before it is. It returns the errors of all functions, joined;
// a function that returns nil before its stage was cancelled ends the others
// all the same.
func RunStages(ctx context.Context, stages ...Stage) error {
	type running struct {
		cancel context.CancelFunc
		wait   sync.WaitGroup
	}
	var (
		mu    sync.Mutex
		all   []error
		ended = make(chan struct{})
		once  sync.Once
		runs  = make([]*running, len(stages))
	)
	for i, stage := range stages {
		// Not a child of ctx: a stage must outlive those that depend on it.
		sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		r := &running{cancel: cancel}
		runs[i] = r
		for _, f := range stage {
			r.wait.Go(func() {
				err := f(sctx)
				if err != nil && !(errors.Is(err, context.Canceled) && sctx.Err() != nil) {
					mu.Lock()
					all = append(all, err)
					mu.Unlock()
				}
				once.Do(func() { close(ended) })
			})
		}
	}
	select {
	case <-ctx.Done():
	case <-ended:
	}
	for i := len(runs) - 1; i >= 0; i-- {
		runs[i].cancel()
		runs[i].wait.Wait()
	}
	return errors.Join(all...)
}
