package node

import (
	"context"
	"fmt"
	"log/slog"
)

// raftLogger is slog as raft wants it. What raft finds worth an Info happens at
// every election several times; the Node logs what came of it.
type raftLogger struct{ log *slog.Logger }

func (l raftLogger) line(level slog.Level, format string, v []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, "raft: "+fmt.Sprintf(format, v...))
	}
}

func (l raftLogger) Debug(v ...any)                 { l.line(slog.LevelDebug-1, "%s", []any{fmt.Sprint(v...)}) }
func (l raftLogger) Debugf(format string, v ...any) { l.line(slog.LevelDebug-1, format, v) }
func (l raftLogger) Info(v ...any)                  { l.line(slog.LevelDebug, "%s", []any{fmt.Sprint(v...)}) }
func (l raftLogger) Infof(format string, v ...any)  { l.line(slog.LevelDebug, format, v) }
func (l raftLogger) Warning(v ...any)               { l.line(slog.LevelWarn, "%s", []any{fmt.Sprint(v...)}) }
func (l raftLogger) Warningf(format string, v ...any) {
	l.line(slog.LevelWarn, format, v)
}
func (l raftLogger) Error(v ...any)                 { l.line(slog.LevelError, "%s", []any{fmt.Sprint(v...)}) }
func (l raftLogger) Errorf(format string, v ...any) { l.line(slog.LevelError, format, v) }
func (l raftLogger) Fatal(v ...any)                 { panic("raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Fatalf(format string, v ...any) { panic("raft: " + fmt.Sprintf(format, v...)) }
func (l raftLogger) Panic(v ...any)                 { panic("raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Panicf(format string, v ...any) { panic("raft: " + fmt.Sprintf(format, v...)) }
