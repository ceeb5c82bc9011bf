package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// unitName is that of the one unit which the flags describe.
const unitName = "worker"

// maxWorkers is more than one host runs; a typing error must not fork without end.
const maxWorkers = 10_000

// minRequestTTL is the shortest --request-ttl that makes sense.
const minRequestTTL = time.Second

// minBackups is the shortest --backup-interval that makes sense.
const minBackups = time.Second

func runCommand() *cli.Command {
	cmd := leaf("run", "start the master and its workers, and stay in the foreground", func(c *cli.Context) error {
		cfg, err := configOf(c, workersMayLive)
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
	return append([]cli.Flag{
		&cli.IntFlag{Name: "port", Value: 50051, EnvVars: env("PORT"), Usage: "`PORT` to serve requests on"},
		&cli.StringFlag{Name: "listen", Value: "127.0.0.1", EnvVars: env("LISTEN"), Usage: "`ADDRESS` to serve requests on; beyond loopback with --tls-cert or --insecure only"},
		&cli.StringFlag{Name: "worker-path", EnvVars: env("WORKER_PATH"), Usage: "`PATH` of the worker's executable; it is started with --port N"},
		&cli.IntFlag{Name: "worker-count", Value: 2, EnvVars: env("WORKER_COUNT"), Usage: "how `MANY` workers to run"},
		&cli.StringSliceFlag{Name: "worker-arg", EnvVars: env("WORKER_ARG"), Usage: "`ARGUMENT` for the workers, before --port N (repeatable)"},
		&cli.StringSliceFlag{Name: "worker-service", EnvVars: env("WORKER_SERVICE"), Usage: "full `NAME` of a gRPC service that the workers offer (repeatable; default: proto.MyBusinessService); a worker with reflection offers what that lists, and nothing else"},
		&cli.StringSliceFlag{Name: "service-option", EnvVars: env("SERVICE_OPTION"), Usage: "how calls of a service are treated: `NAME:FIELD=VALUE,...` with balance=least|round-robin|affinity, key=METADATA-KEY (of affinity), max-in-flight=N, max-message=4MiB; NAME * is all others (repeatable)"},
		&cli.StringFlag{Name: "sync", Value: "always", EnvVars: env("SYNC"), Usage: "when the count of requests is synced: `always`, or interval (100ms; may lose that much of the count in a power cut, nothing in a crash)"},
		&cli.DurationFlag{Name: "request-ttl", Value: 10 * time.Minute, EnvVars: env("REQUEST_TTL"), Usage: "how long a request with an hsu-request-id is known, so that it is counted once and answered alike when it comes again"},
		&cli.StringFlag{Name: "on-damage", Value: "refuse", EnvVars: env("ON_DAMAGE"), Usage: "what to do about a damaged state: `refuse` (exit 5, nothing is touched), or recover (keep it aside, go on from the newest good backup and the living workers)"},
		&cli.DurationFlag{Name: "backup-interval", Value: 15 * time.Minute, EnvVars: env("BACKUP_INTERVAL"), Usage: "how often the state is backed up into its folder, where it has changed; 0: never"},
		&cli.IntFlag{Name: "backup-keep", Value: 8, EnvVars: env("BACKUP_KEEP"), Usage: "how `MANY` of the newest backups stay"},
		&cli.DurationFlag{Name: "start-timeout", Value: 30 * time.Second, EnvVars: env("START_TIMEOUT"), Usage: "how long a worker may take to answer its first Ping"},
		&cli.DurationFlag{Name: "stop-grace", Value: 10 * time.Second, EnvVars: env("STOP_GRACE"), Usage: "how long a worker has between SIGTERM and SIGKILL"},
		&cli.DurationFlag{Name: "restart-backoff", Value: 100 * time.Millisecond, EnvVars: env("RESTART_BACKOFF"), Usage: "first delay before a restart; it doubles up to 30s"},
		&cli.StringFlag{Name: "restart-budget", Value: "10/5m", EnvVars: env("RESTART_BUDGET"), Usage: "restarts that a worker has within a time of being ready: `N/TIME`; then it has failed"},
		&cli.StringFlag{Name: "on-exit", Value: "stop", EnvVars: env("ON_EXIT"), Usage: "what becomes of the workers when the master is stopped: `stop`, or detach (they run on)"},
		&cli.StringFlag{Name: "metrics", EnvVars: env("METRICS"), Usage: "`HOST:PORT` to show figures to Prometheus on, at /metrics, such as 127.0.0.1:9464 (default: nowhere)"},
		&cli.StringFlag{Name: "log-format", Value: "text", EnvVars: env("LOG_FORMAT"), Usage: "`text` or json"},
		&cli.StringFlag{Name: "log-level", Value: "info", EnvVars: env("LOG_LEVEL"), Usage: "debug, `info`, warn or error"},
	}, secureFlags()...)
}

// config is a checked command line of run.
type config struct {
	folders   folders
	address   string // host:port to serve on
	tls       api.TLSFiles
	metrics   string // host:port to show figures on, empty for nowhere
	units     []supervisor.Unit
	policies  map[string]services.Policy
	sync      store.SyncMode
	onDamage  store.OnDamage
	resultTTL time.Duration // of requests with an id
	backups   time.Duration // between two, 0: none
	keep      int           // backups
	stopGrace time.Duration
	detach    bool // leave the workers running when stopped
	logJSON   bool
	logLevel  slog.Level

	unitFault error // that keeps no master from living workers
}

// configOf reports every fault of the flags at once. Where excused says so of the
// state folder, a worker's executable that cannot be executed is none.
func configOf(c *cli.Context, excused func(stateDir string) bool) (config, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	cfg := config{stopGrace: c.Duration("stop-grace")}
	var err error
	if cfg.folders, err = foldersOf(c); err != nil {
		return config{}, err
	}

	ip := listenAddress(c, fail)
	port := c.Int("port")
	if port < 1 || port > 65535 {
		fail("--port %d: want 1 to 65535", port)
	}
	cfg.address = net.JoinHostPort(ip.String(), strconv.Itoa(port))
	cfg.tls = tlsFiles(c, fail)
	cfg.metrics = metricsAddress(c, fail)

	cfg.sync = choose(c, fail, "sync", map[string]store.SyncMode{"always": store.SyncAlways, "interval": store.SyncInterval})
	cfg.onDamage = choose(c, fail, "on-damage", map[string]store.OnDamage{"refuse": store.Refuse, "recover": store.Recover})
	if cfg.resultTTL = c.Duration("request-ttl"); cfg.resultTTL < minRequestTTL {
		fail("--request-ttl %s: want %s or more", cfg.resultTTL, minRequestTTL)
	}
	if cfg.backups = c.Duration("backup-interval"); cfg.backups < 0 || cfg.backups > 0 && cfg.backups < minBackups {
		fail("--backup-interval %s: want %s or more, or 0 for none", cfg.backups, minBackups)
	}
	if cfg.keep = c.Int("backup-keep"); cfg.keep < 1 {
		fail("--backup-keep %d: want 1 or more", cfg.keep)
	}
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
	cfg.policies = policiesOf(c, fail)
	offers := workerServicesOf(c, fail)
	if path := c.String("worker-path"); path != "" {
		unit := supervisor.Unit{
			Name:         unitName,
			Path:         path,
			Args:         c.StringSlice("worker-arg"),
			Replicas:     max(0, c.Int("worker-count")),
			Services:     offers,
			StartTimeout: c.Duration("start-timeout"),
			StopGrace:    c.Duration("stop-grace"),
			Restart:      supervisor.RestartPolicy{Backoff: c.Duration("restart-backoff"), Budget: budget},
		}
		if err := unit.Validate(); err != nil && excused(cfg.folders.state) {
			cfg.unitFault = err
		} else if err != nil {
			fail("%w", err)
		}
		cfg.units = append(cfg.units, unit)
	} else {
		for _, flag := range []string{"worker-arg", "worker-service"} {
			if len(c.StringSlice(flag)) > 0 {
				fail("--%s is given without --worker-path", flag)
			}
		}
	}
	if len(errs) > 0 {
		return config{}, usageError{errors.Join(errs...)}
	}
	return cfg, nil
}

// workersMayLive tells whether a master has left workers running in the state. Then
// the next one must not stay away because their executable is just being replaced.
func workersMayLive(stateDir string) bool {
	snap, err := store.ReadSnapshot(stateDir)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) // whoever opens it will say what it is
	}
	return slices.ContainsFunc(snap.Workers, func(w store.Worker) bool { return w.Instance != nil })
}

// choose returns the value that the flag names.
func choose[T any](c *cli.Context, fail func(string, ...any), flag string, values map[string]T) T {
	value, ok := values[c.String(flag)]
	if !ok {
		fail("--%s %q: see \"hsu-master run --help\" for what it can be", flag, c.String(flag))
	}
	return value
}
