package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/daemon"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	configfile "github.com/core-tools/hsu-master/config"
	"github.com/core-tools/hsu-master/master"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

const (
	onExitFlag   = "on-exit"
	registryFlag = "registry"
)

// unitName is the name of the unit that the flags describe.
const unitName = "worker"

// maxWorkers is more workers than a host can run. It keeps a typing error from forking without end.
const maxWorkers = 10_000

// minRequestTTL is the shortest --request-ttl that makes sense.
const minRequestTTL = time.Second

// minBackups is the shortest --backup-interval that makes sense.
const minBackups = time.Second

func runCommand() *cli.Command {
	cmd := leaf("run", "start the master and its workers in the foreground", func(c *cli.Context) error {
		cfg, err := configOf(c, workersMayLive)
		if err != nil {
			return err
		}
		if err := checkForgotten(c, cfg); err != nil {
			return err
		}
		if check := daemon.UpgradeCheckOf(c.Context); check != nil {
			return check.Run(cfg.Config, c.App.Writer)
		}
		return daemon.Serve(c.Context, cfg.Config, c.App.ErrWriter)
	}, runFlags()...)
	cmd.Description = `The file of --config describes the units, or the flags of workers describe one.
Without both the master processes requests itself (standalone). Other flags and
variables override the file.

Signals:
  TERM, INT  stop the workers and the master; a second INT stops them at once
  USR1       leave the workers running: end the calls in flight and exit; the
             next master adopts the workers
  HUP        read the file of --config again, as "hsu-master reload" does
  USR2       replace the program in place, as "hsu-master upgrade" does`
	return cmd
}

// The topics by which help groups the flags of run.
const (
	ofRequests = "Requests:"
	ofWorkers  = "Workers:"
	ofState    = "State:"
	ofLog      = "Log:"
)

func runVariable(name string) []string { return []string{"HSU_MASTER_" + name} }

// runFlags returns the flags of run. "systemd install" accepts them too and writes them into the unit.
func runFlags() []cli.Flag {
	return slices.Concat(
		fileFlags(), requestFlags(), secureFlags(), serviceFlags(), workerFlags(), stateFlags(), logFlags())
}

func requestFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{
			Name: "port", Value: 50051, EnvVars: runVariable("PORT"), Category: ofRequests,
			Usage: "`PORT` port to serve requests on",
		},
		&cli.StringFlag{
			Name: "listen", Value: "127.0.0.1", EnvVars: runVariable("LISTEN"), Category: ofRequests,
			Usage: "`ADDRESS` IP address to serve requests on; other than a loopback address it needs --tls-cert " +
				"or --insecure",
		},
	}
}

func serviceFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{
			Name: "service-option", EnvVars: runVariable("SERVICE_OPTION"), Category: ofRequests,
			Usage: "`NAME:FIELD=VALUE,...` set options for the calls of a service, or of all others with the name *: " +
				"balance=least|round-robin|affinity, key=METADATA-KEY (for affinity), max-in-flight=N, " +
				"max-message=SIZE such as 4MiB; repeatable",
		},
		&cli.DurationFlag{
			Name: "request-ttl", Value: 10 * time.Minute, EnvVars: runVariable("REQUEST_TTL"), Category: ofRequests,
			Usage: "`DURATION` remember requests with an hsu-request-id for this long; a repeated request is " +
				"counted once and gets the same answer",
		},
		&cli.StringFlag{
			Name: "metrics", EnvVars: runVariable("METRICS"), Category: ofRequests,
			Usage: "`HOST:PORT` serve metrics for Prometheus at /metrics on this address, such as 127.0.0.1:9464 " +
				"(default: disabled)",
		},
		&cli.StringFlag{
			Name: registryFlag, EnvVars: runVariable("REGISTRY"), Category: ofRequests,
			Usage: "`URL` serve the module registry on this unix socket, such as " +
				"unix:///run/hsu-master/registry.sock: HSU modules publish themselves there (default: disabled)",
		},
	}
}

func workerFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: workerPathFlag, EnvVars: runVariable("WORKER_PATH"), Category: ofWorkers,
			Usage: "`PATH` executable of the workers, or its name in PATH; it is started with --port N",
		},
		&cli.IntFlag{
			Name: "worker-count", Value: 2, EnvVars: runVariable("WORKER_COUNT"), Category: ofWorkers,
			Usage: "`N` number of workers",
		},
		&cli.StringSliceFlag{
			Name: "worker-arg", EnvVars: runVariable("WORKER_ARG"), Category: ofWorkers,
			Usage: "`ARG` argument for the workers, before --port N; repeatable",
		},
		&cli.StringSliceFlag{
			Name: "worker-service", EnvVars: runVariable("WORKER_SERVICE"), Category: ofWorkers,
			Usage: "`NAME` full name of a gRPC service that the workers offer, or none; repeatable (default: " +
				"proto.MyBusinessService, if a worker answers its GetStatus); a worker with gRPC reflection offers " +
				"only what reflection lists",
		},
		&cli.DurationFlag{
			Name: "start-timeout", Value: 30 * time.Second, EnvVars: runVariable("START_TIMEOUT"), Category: ofWorkers,
			Usage: "`DURATION` time for a worker to answer its first Ping",
		},
		&cli.DurationFlag{
			Name: "stop-grace", Value: 10 * time.Second, EnvVars: runVariable("STOP_GRACE"), Category: ofWorkers,
			Usage: "`DURATION` time between SIGTERM and SIGKILL for a worker",
		},
		&cli.DurationFlag{
			Name: "restart-backoff", Value: 100 * time.Millisecond, EnvVars: runVariable("RESTART_BACKOFF"),
			Category: ofWorkers,
			Usage:    "`DURATION` delay before the first restart; it doubles up to 30s",
		},
		&cli.StringFlag{
			Name: "restart-budget", Value: "10/5m", EnvVars: runVariable("RESTART_BUDGET"), Category: ofWorkers,
			Usage: "`RESTARTS/WINDOW` number of restarts of a worker within a window of being ready; a worker that " +
				"needs more fails",
		},
		&cli.StringFlag{
			Name: onExitFlag, Value: "stop", EnvVars: runVariable("ON_EXIT"), Category: ofWorkers,
			Usage: "`ACTION` what to do with the workers when the master stops: stop, or detach (leave them running)",
		},
	}
}

func stateFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "sync", Value: "always", EnvVars: runVariable("SYNC"), Category: ofState,
			Usage: "`MODE` when to sync the count of requests to disk: always, or interval (every 100ms; a power cut " +
				"may lose that much of the count, a crash nothing)",
		},
		&cli.StringFlag{
			Name: "on-damage", Value: "refuse", EnvVars: runVariable("ON_DAMAGE"), Category: ofState,
			Usage: "`ACTION` what to do about a damaged state: refuse (exit 5, change nothing), or recover (keep it " +
				"aside, continue with the newest good backup and the running workers)",
		},
		&cli.DurationFlag{
			Name: "backup-interval", Value: 15 * time.Minute, EnvVars: runVariable("BACKUP_INTERVAL"),
			Category: ofState,
			Usage:    "`DURATION` time between backups of a changed state; 0 disables them",
		},
		&cli.IntFlag{
			Name: "backup-keep", Value: 8, EnvVars: runVariable("BACKUP_KEEP"), Category: ofState,
			Usage: "`N` number of newest backups to keep",
		},
	}
}

func logFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "log-format", Value: "text", EnvVars: runVariable("LOG_FORMAT"), Category: ofLog,
			Usage: "`FORMAT` format of the log: text or json",
		},
		&cli.StringFlag{
			Name: "log-level", Value: "info", EnvVars: runVariable("LOG_LEVEL"), Category: ofLog,
			Usage: "`LEVEL` lowest level to log: debug, info, warn or error",
		},
	}
}

// config is a checked command line of run.
type config struct {
	daemon.Config
	folders   folders
	file      *configfile.File // of --config; nil without it
	noWorkers bool             // --worker-count 0 without --worker-path
}

// configOf returns the configuration of the flags, or all their faults in one error. If excused returns true for
// the state folder, an executable that cannot be executed is not a fault.
func configOf(c *cli.Context, excused func(stateDir string) bool) (config, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	f, err := foldersOf(c)
	if err != nil {
		return config{}, err
	}
	cfg := config{folders: f}
	cfg.Master = master.Options{StateDir: f.state, RuntimeDir: f.runtime, Version: version()}
	held := daemon.TakesOver(c.Context) // its check has read the state, which this process has locked
	file, err := fileOf(c, held || hasWorkers(stateToRead(c, f)), fail)
	if err != nil {
		return config{}, err
	}

	ip := listenAddress(c, fail)
	cfg.Address = net.JoinHostPort(ip.String(), strconv.Itoa(portOf(c, fail)))
	cfg.TLS, cfg.Insecure = tlsFiles(c, fail), c.Bool(insecureFlag)
	cfg.Metrics, cfg.Registry = metricsAddress(c, fail), registryPath(c, fail)

	m := &cfg.Master
	m.Sync = choose(c, fail, "sync", choice[store.SyncMode]{"always", store.SyncAlways},
		choice[store.SyncMode]{"interval", store.SyncInterval})
	m.OnDamage = choose(c, fail, "on-damage", choice[store.OnDamage]{"refuse", store.Refuse},
		choice[store.OnDamage]{"recover", store.Recover})
	if m.RequestTTL = c.Duration("request-ttl"); m.RequestTTL < minRequestTTL {
		fail("--request-ttl %s: must be %s or more", m.RequestTTL, minRequestTTL)
	}
	m.BackupInterval = c.Duration("backup-interval")
	if m.BackupInterval < 0 || m.BackupInterval > 0 && m.BackupInterval < minBackups {
		fail("--backup-interval %s: must be %s or more, or 0 to disable backups", m.BackupInterval, minBackups)
	}
	if m.KeepBackups = c.Int("backup-keep"); m.KeepBackups < 1 {
		fail("--backup-keep %d: must be 1 or more", m.KeepBackups)
	}
	cfg.Detach = choose(c, fail, onExitFlag, choice[bool]{"stop", false}, choice[bool]{"detach", true})
	cfg.LogJSON = choose(c, fail, "log-format", choice[bool]{"text", false}, choice[bool]{"json", true})
	cfg.LogLevel = choose(c, fail, "log-level",
		choice[slog.Level]{"debug", slog.LevelDebug}, choice[slog.Level]{"info", slog.LevelInfo},
		choice[slog.Level]{"warn", slog.LevelWarn}, choice[slog.Level]{"error", slog.LevelError})
	m.Policies = policiesOf(c, fail)
	cfg.StopTime = new(daemon.StopTime)
	if file != nil {
		cfg.addFile(file, fail)
	} else {
		m.StopGrace = c.Duration("stop-grace")
		m.Units, cfg.UnitFault = unitsOfFlags(c, fail, func() bool { return held || excused(stateToRead(c, f)) })
		cfg.noWorkers = len(m.Units) == 0 && c.IsSet("worker-count")
	}
	cfg.StopTime.Raise(m.StopGrace)
	if len(errs) > 0 {
		return config{}, exit.Usage(errors.Join(errs...))
	}
	return cfg, nil
}

// portOf returns the value of --port.
func portOf(c *cli.Context, fail func(string, ...any)) int {
	port := c.Int("port")
	switch {
	case port == 0:
		fail("--port 0: must be 1 to 65535, because no client would know a port that the kernel chooses: " +
			"use 50051, the default, or another free one")
	case port < 0 || port > 65535:
		fail("--port %d: must be 1 to 65535", port)
	}
	return port
}

// unitsOfFlags returns the unit that the flags describe, or none if they name no executable. If excused returns
// true, an executable that cannot be executed is returned as fault instead of being reported to fail.
func unitsOfFlags(c *cli.Context, fail func(string, ...any),
	excused func() bool,
) (units []unit.Spec, fault error) {
	for _, name := range []string{"start-timeout", "stop-grace", "restart-backoff"} {
		if c.Duration(name) <= 0 {
			fail("--%s %s: must be above 0, such as 10s", name, c.Duration(name))
		}
	}
	budget, err := unit.ParseRestartBudget(c.String("restart-budget"))
	if err != nil {
		fail("--restart-budget: %w", err)
	}
	count := c.Int("worker-count")
	switch {
	case count < 0:
		fail("--worker-count %d: must be 0 or more", count)
	case count > maxWorkers:
		fail("--worker-count %d: must be %d or less", count, maxWorkers)
	}
	offers, none := workerServicesOf(c, fail)
	path, err := workerPath(c)
	switch {
	case err != nil:
		fail("%w", err)
		return nil, nil
	case path == "":
		checkNoWorker(c, fail)
		return nil, nil
	}
	spec := unit.Spec{
		Name:       unitName,
		Path:       path,
		Args:       c.StringSlice("worker-arg"),
		Replicas:   max(0, count),
		Services:   offers,
		NoServices: none,
		Start:      unit.Start{Timeout: c.Duration("start-timeout")},
		Stop:       unit.Stop{Grace: c.Duration("stop-grace")},
		Restart:    unit.RestartPolicy{Backoff: c.Duration("restart-backoff"), Budget: budget},
	}
	if err := spec.Validate(); err != nil && excused() {
		fault = err
	} else if err != nil {
		fail("%w", err)
	}
	return []unit.Spec{spec}, fault
}

// checkNoWorker refuses flags of workers if there is no --worker-path. A --worker-count of 0 is accepted.
func checkNoWorker(c *cli.Context, fail func(string, ...any)) {
	if c.IsSet("worker-count") && c.Int("worker-count") != 0 {
		fail("--worker-count %d is given without --worker-path: name the workers' executable", c.Int("worker-count"))
	}
	for _, flag := range []string{"worker-arg", "worker-service"} {
		if len(c.StringSlice(flag)) > 0 {
			fail("--%s is given without --worker-path", flag)
		}
	}
}

// stateToRead returns the folder of the state as the last master has left it. While a master runs, a check of the
// program that is to replace it reads a copy.
func stateToRead(c *cli.Context, f folders) string {
	if check := daemon.UpgradeCheckOf(c.Context); check != nil {
		return check.State
	}
	return f.state
}

// workersMayLive reports whether a master may have left workers running. The next master must then start even if
// their executable is just being replaced.
func workersMayLive(stateDir string) bool {
	snap, err := store.ReadPresent(stateDir)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) // opening the state will report the error
	}
	return slices.ContainsFunc(snap.Workers, func(w records.Worker) bool { return w.Instance != nil })
}

// hasWorkers reports whether a master has had workers in the state folder.
func hasWorkers(stateDir string) bool {
	snap, err := store.ReadPresent(stateDir)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) // opening the state will report the error
	}
	return len(snap.Workers) > 0
}

// checkForgotten refuses to run without units on a state that has some: a forgotten flag would stop and forget all
// workers. --worker-count 0 confirms it.
func checkForgotten(c *cli.Context, cfg config) error {
	if len(cfg.Master.Units) > 0 || c.IsSet(configFlag) || c.IsSet("worker-count") || daemon.TakesOver(c.Context) {
		return nil
	}
	snap, err := store.ReadPresent(stateToRead(c, cfg.folders))
	if err != nil {
		return nil //nolint:nilerr // there is no state, or opening it reports the error
	}
	var names []string
	known := map[string]bool{}
	for _, u := range snap.Units {
		if known[u.Name] = true; u.Wanted() > 0 {
			names = append(names, u.Name)
		}
	}
	for _, w := range snap.Workers {
		if !known[w.Unit] { // recorded by a release that recorded no units
			known[w.Unit] = true
			names = append(names, w.Unit)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return exit.Hint(exit.Usagef("the state in %s has workers of %s, and neither --config nor --worker-path is given",
		cfg.folders.state, render.Printable(strings.Join(names, ", "))),
		"give the flags of the last start, or --worker-count 0 to stop and forget all workers")
}

// choice is one of the words that a flag accepts, with the value that it stands for.
type choice[T any] struct {
	word  string
	value T
}

// choose returns the value of the word that the flag is set to.
func choose[T any](c *cli.Context, fail func(string, ...any), flag string, choices ...choice[T]) T {
	given := c.String(flag)
	words := make([]string, len(choices))
	for i, choice := range choices {
		if choice.word == given {
			return choice.value
		}
		words[i] = choice.word
	}
	fail("--%s %q: must be one of %s", flag, given, strings.Join(words, ", "))
	var none T
	return none
}
