package session

import "time"

// Config is what a Session needs. Zero limits take their defaults.
type Config struct {
	// Owner is the stable name of who writes. A second session of the same
	// owner closes the first.
	Owner string
	// Member and ClientURLs are a gateway's: the member that it speaks for and
	// where clients reach it. Zero and empty for others.
	Member     uint64
	ClientURLs []string

	// CommandBytesMax is the largest body of a command; default 8 MiB.
	CommandBytesMax int
	// PayloadBytesMax and PayloadCommandsMax bound what is sent as one log
	// entry; a single command may exceed the bytes. Defaults 1 MiB and 2048.
	PayloadBytesMax    int
	PayloadCommandsMax int
	// InflightPayloadsMax bounds the payloads that are sent and not answered:
	// while that many are under way, commands gather. Default 4.
	InflightPayloadsMax int
	// InflightCommandsMax and InflightBytesMax bound the commands that are sent
	// and not answered; a single command may exceed the bytes. Defaults 16384
	// and 32 MiB.
	InflightCommandsMax int
	InflightBytesMax    int
	// QueueCommandsMax and QueueBytesMax bound the commands that wait to be
	// sent; beyond them Propose refuses. Defaults 65536 and 128 MiB.
	QueueCommandsMax int
	QueueBytesMax    int

	// StallAfter is how long commands in flight may be without any outcome
	// before the next store is asked; default 1 s. After stallRenewals times
	// that they are proposed again, on a new stream, and then at doubled
	// pauses.
	StallAfter time.Duration
	// RetryMin and RetryMax bound the pause after a refused stream. Defaults
	// 10 ms and 500 ms. A change of the directory ends any pause.
	RetryMin, RetryMax time.Duration
	// CloseTimeout bounds what Run does after its context ended: waiting for
	// outcomes and closing the session. Default 1 s.
	CloseTimeout time.Duration
}

// stallRenewals is how many stores' silence makes the session propose again.
const stallRenewals = 3

func (c *Config) setDefaults() {
	for _, limit := range []struct {
		value   *int
		initial int
	}{
		{&c.CommandBytesMax, 8 << 20},
		{&c.PayloadBytesMax, 1 << 20},
		{&c.PayloadCommandsMax, 2048},
		{&c.InflightPayloadsMax, 4},
		{&c.InflightCommandsMax, 16384},
		{&c.InflightBytesMax, 32 << 20},
		{&c.QueueCommandsMax, 65536},
		{&c.QueueBytesMax, 128 << 20},
	} {
		if *limit.value <= 0 {
			*limit.value = limit.initial
		}
	}
	for _, limit := range []struct {
		value   *time.Duration
		initial time.Duration
	}{
		{&c.StallAfter, time.Second},
		{&c.RetryMin, 10 * time.Millisecond},
		{&c.RetryMax, 500 * time.Millisecond},
		{&c.CloseTimeout, time.Second},
	} {
		if *limit.value <= 0 {
			*limit.value = limit.initial
		}
	}
}
