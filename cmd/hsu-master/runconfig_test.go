package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

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
		if _, _, err := cfg.Master.ReadUnits(); err != nil {
			t.Fatal(err)
		}
		if got := cfg.StopTime.Longest(); got != reload.want {
			t.Errorf("after a reload with a grace of %s a stop may take %v, want %v", reload.grace, got, reload.want)
		}
	}
}
