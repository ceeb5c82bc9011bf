package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
)

// unitName is that of the one unit which the flags describe.
const unitName = "worker"

// maxWorkers is more than one host runs; a typing error must not fork without end.
const maxWorkers = 10_000

func runCommand() *cli.Command {
	cmd := leaf("run", "start the master and its workers, and stay in the foreground", func(c *cli.Context) error {
		cfg, err := configOf(c)
		if err != nil {
			return err
		}
		return serve(c.Context, cfg, c.App.ErrWriter)
	}, runFlags()...)
	cmd.Description = `Without --worker-path the master processes requests by itself (standalone).

Signals: TERM and INT stop the workers and the master, a second INT gives no
grace; USR1 leaves the workers running and exits, for the next master to adopt.`
	return cmd
}

// runFlags are also what "systemd install" takes and writes into the unit.
func runFlags() []cli.Flag {
	env := func(name string) []string { return []string{"HSU_MASTER_" + name} }
	return []cli.Flag{
		&cli.IntFlag{Name: "port", Value: 50051, EnvVars: env("PORT"), Usage: "`PORT` to serve requests on"},
		&cli.StringFlag{Name: "listen", Value: "127.0.0.1", EnvVars: env("LISTEN"), Usage: "loopback `ADDRESS` to serve requests on"},
		&cli.StringFlag{Name: "worker-path", EnvVars: env("WORKER_PATH"), Usage: "`PATH` of the worker's executable; it is started with --port N"},
		&cli.IntFlag{Name: "worker-count", Value: 2, EnvVars: env("WORKER_COUNT"), Usage: "how `MANY` workers to run"},
		&cli.StringSliceFlag{Name: "worker-arg", EnvVars: env("WORKER_ARG"), Usage: "`ARGUMENT` for the workers, before --port N (repeatable)"},
		&cli.StringFlag{Name: "sync", Value: "always", EnvVars: env("SYNC"), Usage: "when the count of requests is synced: `always`, or interval (100ms; may lose that much of the count in a power cut, nothing in a crash)"},
		&cli.DurationFlag{Name: "start-timeout", Value: 30 * time.Second, EnvVars: env("START_TIMEOUT"), Usage: "how long a worker may take to answer its first Ping"},
		&cli.DurationFlag{Name: "stop-grace", Value: 10 * time.Second, EnvVars: env("STOP_GRACE"), Usage: "how long a worker has between SIGTERM and SIGKILL"},
		&cli.DurationFlag{Name: "restart-backoff", Value: 100 * time.Millisecond, EnvVars: env("RESTART_BACKOFF"), Usage: "first delay before a restart; it doubles up to 30s"},
		&cli.StringFlag{Name: "restart-budget", Value: "10/5m", EnvVars: env("RESTART_BUDGET"), Usage: "restarts that a worker has within a time of being ready: `N/TIME`; then it has failed"},
		&cli.StringFlag{Name: "on-exit", Value: "stop", EnvVars: env("ON_EXIT"), Usage: "what becomes of the workers when the master is stopped: `stop`, or detach (they run on)"},
		&cli.StringFlag{Name: "log-format", Value: "text", EnvVars: env("LOG_FORMAT"), Usage: "`text` or json"},
		&cli.StringFlag{Name: "log-level", Value: "info", EnvVars: env("LOG_LEVEL"), Usage: "debug, `info`, warn or error"},
	}
}

// config is a checked command line of run.
type config struct {
	folders   folders
	address   string // host:port to serve on
	units     []supervisor.Unit
	sync      store.SyncMode
	stopGrace time.Duration
	detach    bool // leave the workers running when stopped
	logJSON   bool
	logLevel  slog.Level
}

// configOf reports every fault of the flags at once.
func configOf(c *cli.Context) (config, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	cfg := config{stopGrace: c.Duration("stop-grace")}
	var err error
	if cfg.folders, err = foldersOf(c); err != nil {
		return config{}, err
	}

	ip := net.ParseIP(c.String("listen"))
	switch {
	case c.String("listen") == "localhost":
		ip = net.IPv4(127, 0, 0, 1)
	case ip == nil:
		fail("--listen %q: want an IP address of this host such as 127.0.0.1", c.String("listen"))
	case !ip.IsLoopback():
		fail("--listen %s is not a loopback address: only 127.0.0.0/8 and ::1 can be served for now, put a proxy in front", ip)
	}
	port := c.Int("port")
	if port < 1 || port > 65535 {
		fail("--port %d: want 1 to 65535", port)
	}
	cfg.address = net.JoinHostPort(ip.String(), strconv.Itoa(port))

	cfg.sync = choose(c, fail, "sync", map[string]store.SyncMode{"always": store.SyncAlways, "interval": store.SyncInterval})
	cfg.detach = choose(c, fail, "on-exit", map[string]bool{"stop": false, "detach": true})
	cfg.logJSON = choose(c, fail, "log-format", map[string]bool{"text": false, "json": true})
	cfg.logLevel = choose(c, fail, "log-level", map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	})
	for _, name := range []string{"start-timeout", "stop-grace", "restart-backoff"} {
		if c.Duration(name) <= 0 {
			fail("--%s %s: want a time above 0 such as 10s", name, c.Duration(name))
		}
	}
	budget, err := supervisor.ParseBudget(c.String("restart-budget"))
	if err != nil {
		fail("--restart-budget: %w", err)
	}
	if c.Int("worker-count") < 0 {
		fail("--worker-count %d: want 0 or more", c.Int("worker-count"))
	}
	if c.IsSet("worker-path") && c.String("worker-path") == "" {
		fail("--worker-path is empty: name an executable, or leave the flag out to run without workers")
	}
	if c.Int("worker-count") > maxWorkers {
		fail("--worker-count %d: want %d at most", c.Int("worker-count"), maxWorkers)
	}
	if path := c.String("worker-path"); path != "" {
		unit := supervisor.Unit{
			Name:         unitName,
			Path:         path,
			Args:         c.StringSlice("worker-arg"),
			Replicas:     max(0, c.Int("worker-count")),
			StartTimeout: c.Duration("start-timeout"),
			StopGrace:    c.Duration("stop-grace"),
			Restart:      supervisor.RestartPolicy{Backoff: c.Duration("restart-backoff"), Budget: budget},
		}
		if err := unit.Validate(); err != nil {
			fail("%w", err)
		}
		cfg.units = append(cfg.units, unit)
	} else if len(c.StringSlice("worker-arg")) > 0 {
		fail("--worker-arg is given without --worker-path")
	}
	if len(errs) > 0 {
		return config{}, usageError{errors.Join(errs...)}
	}
	return cfg, nil
}

// choose returns the value that the flag names.
func choose[T any](c *cli.Context, fail func(string, ...any), flag string, values map[string]T) T {
	value, ok := values[c.String(flag)]
	if !ok {
		fail("--%s %q: see \"hsu-master run --help\" for what it can be", flag, c.String(flag))
	}
	return value
}
