package main

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/urfave/cli/v2"
)

func TestStopIsBounded(t *testing.T) {
	const grace = 10 * time.Second
	type heard struct {
		after time.Duration
		sig   os.Signal
	}
	for name, tt := range map[string]struct {
		heard []heard
		done  time.Duration // after the last signal; 0: never
		want  time.Duration // from the first signal; 0: never
	}{
		"no signal": {
			done: time.Hour,
		},
		"hangs": {
			heard: []heard{{time.Hour, syscall.SIGTERM}},
			want:  grace + stopMargin,
		},
		"ends in time": {
			heard: []heard{{0, syscall.SIGTERM}},
			done:  grace + stopMargin - 1,
		},
		"TERM again": {
			heard: []heard{{0, syscall.SIGTERM}, {time.Second, syscall.SIGTERM}},
			want:  grace + stopMargin,
		},
		"INT again": {
			heard: []heard{{0, os.Interrupt}, {time.Second, os.Interrupt}},
			want:  time.Second + stopMargin,
		},
		"INT at the end": {
			heard: []heard{{0, os.Interrupt}, {grace + stopMargin - 1, os.Interrupt}},
			want:  grace + stopMargin,
		},
		"INT again and yet": {
			heard: []heard{{0, os.Interrupt}, {time.Second, os.Interrupt}},
			done:  time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				signals, done := make(chan os.Signal), make(chan struct{})
				var got time.Duration
				longest := func() time.Duration { return grace }
				go awaitEnd(signals, done, longest, func(took time.Duration) { got = took })
				for _, h := range tt.heard {
					time.Sleep(h.after)
					signals <- h.sig
				}
				if tt.done > 0 {
					time.Sleep(tt.done)
					close(done)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if got != tt.want {
					t.Errorf("ended after %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// A stop of the units that a reload has read may take longer than one of the former units.
func TestReloadRaisesTheBoundOfAStop(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hsu.yaml")
	write := func(grace string) {
		t.Helper()
		text := "units: {a: {kind: managed, command: [sleep, infinity], stop: {grace: " + grace + "}}}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("1m")
	var cfg config
	app := newApp(io.Discard, io.Discard)
	app.Commands = []*cli.Command{leaf("run", "", func(c *cli.Context) (err error) {
		cfg, err = configOf(c, workersMayLive)
		return err
	}, runFlags()...)}
	if err := app.Run([]string{"hsu-master", "run", "--state-dir", t.TempDir(), "--config", file}); err != nil {
		t.Fatal(err)
	}
	for _, reload := range []struct {
		grace string
		want  time.Duration
	}{
		{"1m", time.Minute},
		{"3m", 3 * time.Minute},
		{"2m", 3 * time.Minute}, // a worker with the former grace may still be stopping
	} {
		write(reload.grace)
		if _, _, err := cfg.master.ReadUnits(); err != nil {
			t.Fatal(err)
		}
		if got := cfg.stopTime.get(); got != reload.want {
			t.Errorf("after a reload with a grace of %s a stop may take %v, want %v", reload.grace, got, reload.want)
		}
	}
}
