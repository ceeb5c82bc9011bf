package main

import (
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
)

// leaves calls do for every command without subcommands.
func leaves(commands []*cli.Command, do func(*cli.Command)) {
	for _, c := range commands {
		if len(c.Subcommands) > 0 {
			leaves(c.Subcommands, do)
		} else {
			do(c)
		}
	}
}

// FuzzReorder takes a command line, one argument per line. The parser must take the reordered line as it was
// meant.
func FuzzReorder(f *testing.F) {
	for _, line := range []string{
		"run", "worker\nlist\n--json", "--json\nworker\nlist\n--state-dir\n/x", "call\n--data\n--\nprocess-data",
		"state\ndump\nextra\n--json", "run\n--\n--port\n1", "no-such\ncommand",
		"run\n--worker-arg=-x\n-worker-count\n3", "",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\n")
		app := newApp(io.Discard, io.Discard)
		var got []string
		leaves(app.Commands, func(c *cli.Command) {
			c.Action = func(c *cli.Context) error {
				got = c.Args().Slice()
				return nil
			}
		})
		ordered, err := reorder(app, slices.Clone(args))
		if err != nil {
			if exit.Code(err) != exit.WrongUsage {
				t.Errorf("%q: %v, which is exit code %d", args, err, exit.Code(err))
			}
			return
		}
		if slices.Equal(ordered, []string{"version"}) || slices.Contains(ordered, "--help") {
			return // help or version, requested among other words
		}
		if was, is := sorted(args), sorted(ordered); !slices.Equal(was, is) {
			t.Fatalf("%q became %q", args, ordered)
		}
		if err := app.RunContext(t.Context(), append([]string{app.Name}, ordered...)); err != nil {
			if code := exit.Code(err); code != exit.WrongUsage {
				t.Errorf("%q: %v, which is exit code %d", ordered, err, code)
			}
			return
		}
		if n := len(ordered) - len(got); !slices.Equal(ordered[n:], got) || len(got) > 0 && ordered[n-1] != "--" {
			t.Errorf("%q: the parser takes %q for arguments", ordered, got)
		}
	})
}

func sorted(args []string) []string {
	kept := slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "--" })
	slices.Sort(kept)
	return kept
}

// FuzzConfig takes the flags of run, one argument per line.
func FuzzConfig(f *testing.F) {
	for _, line := range []string{
		"", "--port\n0", "--port=65535\n--listen=::1", "--listen\n0.0.0.0", "--listen=localhost\n--sync=interval",
		"--restart-budget=10/5m\n--restart-backoff=1ms\n--stop-grace=1ns",
		"--worker-count=-1", "--worker-count\n99999999999",
		"--worker-path=/bin/sh\n--worker-arg=-c\n--worker-arg=true\n--worker-count=10000",
		"--start-timeout=-5s", "--worker-path=",
		"--state-dir=\n--runtime-dir=x", "--log-format=json\n--log-level=debug\n--on-exit=detach", "--help",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		app := newApp(io.Discard, io.Discard)
		var cfg config
		asked := false
		at := slices.IndexFunc(app.Commands, func(c *cli.Command) bool { return c.Name == "run" })
		app.Commands[at].Action = func(c *cli.Context) (err error) {
			cfg, err = configOf(c, func(string) bool { return false })
			asked = err == nil
			return err
		}
		args, err := reorder(app, append([]string{"run", "--state-dir", "st"}, strings.Split(line, "\n")...))
		if err == nil {
			err = app.RunContext(t.Context(), append([]string{app.Name}, args...))
		}
		if err != nil {
			if exit.Code(err) != exit.WrongUsage {
				t.Errorf("%q: %v, which is exit code %d", args, err, exit.Code(err))
			}
			return
		}
		if !asked {
			return // help was requested
		}
		host, _, err := net.SplitHostPort(cfg.Address)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			t.Errorf("%q: address %q", args, cfg.Address)
		}
		if !filepath.IsAbs(cfg.folders.state) || !filepath.IsAbs(cfg.folders.runtime) {
			t.Errorf("%q: folders %+v", args, cfg.folders)
		}
		if cfg.Master.StopGrace <= 0 {
			t.Errorf("%q: grace %s", args, cfg.Master.StopGrace)
		}
		for _, u := range cfg.Master.Units {
			if u.Path == "" || u.Replicas < 0 || u.Replicas > maxWorkers || u.Start.Timeout <= 0 ||
				u.Restart.Backoff <= 0 || u.Restart.Budget.Restarts < 0 || u.Restart.Budget.Window <= 0 ||
				u.Stop.Grace != cfg.Master.StopGrace {
				t.Errorf("%q: unit %+v", args, u)
			}
		}
	})
}

// harmless checks that the text has no control characters except line ends.
func harmless(t *testing.T, text string) {
	t.Helper()
	if !utf8.ValidString(text) ||
		strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
		t.Errorf("printed: %q", text)
	}
}
