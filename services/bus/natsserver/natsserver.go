// Package natsserver runs a NATS server inside a process of ours: for tests, and
// for clusters that are started on one machine.
package natsserver

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// readyTimeout bounds the start.
const readyTimeout = 10 * time.Second

// Config is where a Server listens.
type Config struct {
	// Host; default 127.0.0.1.
	Host string
	// Port; 0 takes a free one.
	Port int
	// PayloadBytesMax is the largest message; 0 is NATS' own 1 MiB.
	PayloadBytesMax int32
	// Log gets what the server says; nil discards.
	Log *slog.Logger
}

// Server is a running NATS server.
type Server struct {
	server *server.Server
}

// Start returns a server that takes connections. It keeps nothing on disk and
// does not touch the process' signals.
func Start(c Config) (*Server, error) {
	if c.Host == "" {
		c.Host = "127.0.0.1"
	}
	if c.Port == 0 {
		c.Port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "quartet-bus",
		Host:       c.Host,
		Port:       c.Port,
		MaxPayload: c.PayloadBytesMax,
		NoSigs:     true, // else it would end the process by itself
		NoLog:      c.Log == nil,
	})
	if err != nil {
		return nil, fmt.Errorf("NATS server: %w", err)
	}
	if c.Log != nil {
		s.SetLoggerV2(logger{c.Log}, false, false, false)
	}
	go s.Start()
	if !s.ReadyForConnections(readyTimeout) {
		s.Shutdown()
		return nil, fmt.Errorf("NATS server at %s:%d is not ready after %v", c.Host, c.Port, readyTimeout)
	}
	return &Server{s}, nil
}

// URL is where clients connect.
func (s *Server) URL() string { return s.server.ClientURL() }

// Run waits until ctx ends, stops the server and returns ctx's error.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	s.Stop()
	return ctx.Err()
}

// Stop ends every connection and waits until the server is gone.
func (s *Server) Stop() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}

// logger hands the server's lines to slog.
type logger struct{ *slog.Logger }

func (l logger) Noticef(format string, v ...any) { l.Info(fmt.Sprintf(format, v...)) }
func (l logger) Warnf(format string, v ...any)   { l.Warn(fmt.Sprintf(format, v...)) }
func (l logger) Errorf(format string, v ...any)  { l.Error(fmt.Sprintf(format, v...)) }
func (l logger) Fatalf(format string, v ...any)  { l.Error(fmt.Sprintf(format, v...)) }
func (l logger) Debugf(format string, v ...any)  { l.Debug(fmt.Sprintf(format, v...)) }
func (l logger) Tracef(format string, v ...any)  { l.Debug(fmt.Sprintf(format, v...)) }
