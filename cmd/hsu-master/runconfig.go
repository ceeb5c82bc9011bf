package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"strconv"
	"sync/atomic"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/install"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	configfile "github.com/core-tools/hsu-master/config"
	"github.com/core-tools/hsu-master/deploy"
	"github.com/core-tools/hsu-master/master"
	"github.com/core-tools/hsu-master/supervisor/dependencies"
	"github.com/core-tools/hsu-master/supervisor/reactions"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

const configFlag = "config"

func fileFlags() []cli.Flag {
	return []cli.Flag{&cli.StringFlag{
		Name: configFlag, EnvVars: runVariable("CONFIG"), Category: ofWorkers,
		Usage: "`FILE` configuration file with the units and the settings of the master",
	}}
}

// fileOf returns the file of --config, nil if there is none. It sets each flag that is not given to its value in the
// file, so that flags and variables override the file and the same checks apply. In a known state, a user or group that
// has been removed from the host is no fault: it is no reason to leave all other units without a master, and the start
// of a worker reports it.
func fileOf(c *cli.Context, known bool, fail func(string, ...any)) (*configfile.File, error) {
	if !c.IsSet(configFlag) {
		return nil, nil //nolint:nilnil // no file and no fault
	}
	for _, flag := range workerFlags() {
		if name := flag.Names()[0]; name != onExitFlag && c.IsSet(name) {
			fail("--%s cannot be combined with --config: describe the workers in the file", name)
		}
	}
	host, err := hostOf(c, known)
	if err != nil {
		return nil, err
	}
	file, err := loadConfig(c.String(configFlag), host)
	if err != nil {
		return nil, err
	}
	for name, value := range flagsOf(file) {
		if c.IsSet(name) {
			continue
		}
		if err := c.Set(name, value); err != nil {
			fail("--%s %q: %w", name, value, err)
		}
	}
	return file, nil
}

// hostOf returns the host on which the master of the command will run: this process, or the service of a unit.
func hostOf(c *cli.Context, known bool) (configfile.Host, error) {
	if user := c.String(install.UserFlag); user != "" {
		return install.ServiceHost(deploy.Options{Name: c.String(install.NameFlag)}, user)
	}
	host := configfile.ThisHost()
	if known {
		exists := func(string) error { return nil }
		host.User, host.Group = exists, exists
	}
	return host, nil
}

// flagsOf returns the flags that the settings of the master in a file stand for. Empty ones are missing.
func flagsOf(f *configfile.File) map[string]string {
	host, port, _ := net.SplitHostPort(f.Listen) // checked when the file was read
	flags := map[string]string{
		"listen": host, "port": port,
		"tls-cert": f.TLS.Cert, "tls-key": f.TLS.Key, "tls-client-ca": f.TLS.ClientCA,
		insecureFlag: strconv.FormatBool(f.Insecure), "metrics": f.Metrics, registryFlag: f.Registry,
		"sync": string(f.Sync), "on-damage": string(f.OnDamage), "request-ttl": f.RequestTTL.String(),
		"backup-interval": f.Backup.Interval.String(), "backup-keep": strconv.Itoa(f.Backup.Keep),
		"log-format": string(f.Log.Format), "log-level": string(f.Log.Level),
	}
	maps.DeleteFunc(flags, func(_, value string) bool { return value == "" })
	return flags
}

// addFile adds the units of a file and its policies for calls. A unit that cannot be started is no reason to leave
// all other units stopped: the error is kept for the log.
func (cfg *config) addFile(f *configfile.File, fail func(string, ...any)) {
	m := &cfg.Master
	cfg.file, cfg.FromFile = f, true
	units, err := master.FileUnits(f)
	if err != nil {
		fail("%s: %w", render.Printable(f.Path), err)
	}
	longest := cfg.StopTime
	var present atomic.Pointer[configfile.File]
	present.Store(f)
	m.Rules = func() []reactions.Rule { return master.FileRules(present.Load()) }
	m.Units, m.ReadUnits = units, func() ([]unit.Spec, []string, error) {
		read, units, later, err := readAgain(f)
		if err != nil {
			return nil, nil, err
		}
		present.Store(read)
		longest.Raise(dependencies.NewGraph(units).StopGrace())
		return units, later, nil
	}
	policies := master.FilePolicies(f)
	maps.Copy(policies, m.Policies)
	m.Policies = policies
	m.StopGrace = max(m.StopGrace, dependencies.NewGraph(units).StopGrace())
	cfg.UnitFault = errors.Join(cfg.UnitFault, notStartable(units))
}

// readAgain reads the file of a running master, which was started with it as it was before. later has the keys of the
// master's own settings that differ.
func readAgain(before *configfile.File) (f *configfile.File, units []unit.Spec, later []string, err error) {
	if f, err = loadConfig(before.Path, configfile.ThisHost()); err != nil {
		return nil, nil, nil, err
	}
	if units, err = master.FileUnits(f); err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", render.Printable(f.Path), err)
	}
	for _, setting := range []struct {
		key           string
		before, after any
	}{
		{"listen", before.Listen, f.Listen},
		{"tls", before.TLS, f.TLS},
		{"insecure", before.Insecure, f.Insecure},
		{"metrics", before.Metrics, f.Metrics},
		{"registry", before.Registry, f.Registry},
		{"sync", before.Sync, f.Sync},
		{"on_damage", before.OnDamage, f.OnDamage},
		{"backup", before.Backup, f.Backup},
		{"request_ttl", before.RequestTTL, f.RequestTTL},
		{"log", before.Log, f.Log},
		{"service_options", before.ServiceOptions, f.ServiceOptions},
	} {
		if !reflect.DeepEqual(setting.before, setting.after) {
			later = append(later, setting.key)
		}
	}
	return f, units, later, nil
}
