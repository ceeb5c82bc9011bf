package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// File is the content of a configuration file and of those that it includes.
type File struct {
	Path       string // of the main file
	Listen     string // host:port
	TLS        TLS
	Insecure   bool   // serving other hosts without TLS is intended
	Metrics    string // host:port; "" means none
	Registry   string // URL of a unix socket; "" means none
	Sync       Sync
	OnDamage   OnDamage
	Backup     Backup
	RequestTTL time.Duration
	Log        MasterLog
	Timezone   *time.Location // of schedules
	Include    []string       // patterns of files with more units

	OnEvent        []OnEvent        // in the order of the file
	ServiceOptions []ServiceOptions // likewise
	Units          []Unit           // in the order of the files

	main    *node
	units   []*node   // of Units, with "defaults:"
	sources []*source // of the main file and of the included ones
}

// Files returns the absolute paths of the configuration files that were read: the main one, and included ones that have
// units.
func (f *File) Files() []string {
	var paths []string
	for _, n := range append([]*node{f.main}, f.units...) {
		if src := n.at.src; src != nil {
			paths = append(paths, src.absolute(filepath.Base(src.name)))
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// Dir returns the folder of the main file.
func (f *File) Dir() string { return f.main.at.src.dir }

func (f *File) keys() []key {
	return []key{
		{
			name: "listen", value: address(&f.Listen), def: "127.0.0.1:50051", change: restartsMaster,
			doc: "address and port to serve requests on; other than loopback needs `tls` or `insecure`",
		},
		{name: "tls", value: fields(&f.TLS), change: restartsMaster, doc: "serves requests with TLS"},
		{
			name: "insecure", value: yesNo(&f.Insecure), def: "false", change: restartsMaster,
			doc: "serves other than loopback addresses without TLS",
		},
		{
			name: "metrics", value: address(&f.Metrics), change: restartsMaster,
			doc: "address and port to serve metrics for Prometheus on",
		},
		{
			name: "registry", value: registry(&f.Registry), change: restartsMaster,
			doc: "unix socket to serve the module registry on, where HSU modules publish themselves and are found",
		},
		{
			name: "sync", value: oneOf(&f.Sync, SyncAlways, SyncInterval), def: "always", change: restartsMaster,
			doc: "when the count of requests is synced to disk: always, or every 100 ms",
		},
		{
			name: "on_damage", value: oneOf(&f.OnDamage, Refuse, Recover), def: "refuse", change: restartsMaster,
			doc: "what a starting master does about a damaged state",
		},
		{name: "backup", value: fields(&f.Backup), change: restartsMaster, doc: "backups of the state"},
		{
			name: "request_ttl", value: duration(&f.RequestTTL, time.Second), def: "10m", change: restartsMaster,
			doc: "how long requests with an hsu-request-id are remembered",
		},
		{name: "log", value: fields(&f.Log), change: restartsMaster, doc: "the log of the master"},
		{
			name: "timezone", value: zone(&f.Timezone), def: "Local",
			doc: "time zone of schedules, such as Europe/Berlin",
		},
		{
			name: "include", value: listOf(&f.Include, text),
			doc: "patterns of files with more units; such a file has the key `units` only",
		},
		{
			name: "on_event", value: onEventValue{&f.OnEvent},
			doc: "commands that are run for events of the history",
		},
		{
			name: "service_options", value: servicesValue{&f.ServiceOptions}, change: restartsMaster,
			doc: "options for calls, by the full name of a service, or `*` for all others",
		},
		{
			name: "defaults", value: fields(&Unit{}),
			doc: "values for all units that do not set them; keys that are not for the kind of a unit are skipped",
		},
		{name: "units", value: unitsValue{}, doc: "the units, by name"},
	}
}

// TLS names the files to serve TLS with.
type TLS struct{ Cert, Key, ClientCA string }

func (t *TLS) keys() []key {
	return []key{
		{name: "cert", value: filePath(&t.Cert), doc: "PEM file with the certificate"},
		{name: "key", value: filePath(&t.Key), doc: "PEM file with the key of the certificate"},
		{
			name: "client_ca", value: filePath(&t.ClientCA),
			doc: "PEM file with the authorities that must have signed the certificates of clients",
		},
	}
}

// Sync is when the count of requests is synced to disk.
type Sync string

// The values of Sync.
const (
	SyncAlways   Sync = "always"
	SyncInterval Sync = "interval"
)

// OnDamage is the reaction of a starting master to a damaged state.
type OnDamage string

// The values of OnDamage.
const (
	Refuse  OnDamage = "refuse"
	Recover OnDamage = "recover"
)

// Backup sets how often the state is backed up, and how many backups are kept.
type Backup struct {
	Interval time.Duration // 0 means never
	Keep     int
}

func (b *Backup) keys() []key {
	return []key{
		{
			name: "interval", value: durationOrNone(&b.Interval, time.Second), def: "15m",
			doc: "time between backups of a changed state; 0 means none",
		},
		{
			name: "keep", value: number(&b.Keep, 1, 10_000), def: "8",
			doc: "number of newest backups to keep",
		},
	}
}

// MasterLog is the log of the master.
type MasterLog struct {
	Format LogFormat
	Level  LogLevel
}

// LogFormat is the form of the lines of the master's log.
type LogFormat string

// The values of LogFormat.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// LogLevel is the lowest level that the master logs.
type LogLevel string

// The values of LogLevel.
const (
	LogDebug LogLevel = "debug"
	LogInfo  LogLevel = "info"
	LogWarn  LogLevel = "warn"
	LogError LogLevel = "error"
)

func (l *MasterLog) keys() []key {
	return []key{
		{
			name: "format", value: oneOf(&l.Format, LogText, LogJSON), def: "text",
			doc: "form of the lines",
		},
		{
			name: "level", value: oneOf(&l.Level, LogDebug, LogInfo, LogWarn, LogError), def: "info",
			doc: "lowest level to log",
		},
	}
}

// ServiceOptions configure the calls of a service.
type ServiceOptions struct {
	Service     string // "*" means all others
	Balance     Balance
	AffinityKey string
	MaxInFlight int  // 0 means no limit
	MaxMessage  Size // 0 means the limit of the master
}

// Balance is how the endpoint for a call is chosen.
type Balance string

// The values of Balance.
const (
	BalanceLeast      Balance = "least"
	BalanceRoundRobin Balance = "round-robin"
	BalanceAffinity   Balance = "affinity"
)

func (s *ServiceOptions) keys() []key {
	return []key{
		{
			name: "balance", value: oneOf(&s.Balance, BalanceLeast, BalanceRoundRobin, BalanceAffinity), def: "least",
			doc: "how the endpoint of a call is chosen: fewest calls in flight, in turn, or by a metadata key",
		},
		{
			name: "key", value: text(&s.AffinityKey),
			doc: "metadata key whose value chooses the endpoint, for `balance: affinity`",
		},
		{
			name: "max_in_flight", value: number(&s.MaxInFlight, 1, math.MaxInt32),
			doc: "calls in flight; more calls wait in a bounded queue",
		},
		{
			name: "max_message", value: size(&s.MaxMessage, 1),
			doc: "size of a message; larger ones are refused",
		},
	}
}

// servicesValue reads the options of services.
type servicesValue struct{ at *[]ServiceOptions }

func (v servicesValue) form() form {
	return form{
		name: "a map of services", json: "object", items: &form{json: "object", keys: new(ServiceOptions).keys()},
	}
}

func (v servicesValue) read(r *reader, n *node) {
	if n.kind == listNode || n.kind == textNode {
		r.fault(n, "must be a map of services by their names, such as {acme.Search: {balance: round-robin}}")
		return
	}
	entries, ok := r.entries(n)
	if !ok {
		return
	}
	for _, e := range entries {
		if ignored(e.name) {
			continue
		}
		if err := checkService(e.name); err != nil && e.name != "*" {
			r.faultAt(e.at, "%.100q %s", e.name, err)
			continue
		}
		options := ServiceOptions{Service: e.name}
		setDefaults(options.keys(), 0)
		r.within(e.name, func() {
			fields(&options).read(r, e.value)
			checkAffinity(r, e, options)
		})
		*v.at = append(*v.at, options)
	}
}

func checkAffinity(r *reader, e entry, options ServiceOptions) {
	switch by := options.Balance == BalanceAffinity; {
	case by && options.AffinityKey == "":
		r.faultAt(e.at, "balance: affinity needs the key whose value chooses the endpoint: key: METADATA-KEY")
	case !by && options.AffinityKey != "":
		r.conflict(e.value, "key", "is only for balance: affinity")
	}
}

// checkService returns an error for a name that no gRPC service can have.
func checkService(name string) error {
	wrong := errors.New("must be the full name of a service such as pkg.Service")
	if len(name) > 255 {
		return wrong
	}
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || leadingName(part) != part {
			return wrong
		}
	}
	return nil
}

// address is a host and a port on which this host can listen.
func address(at *string) value {
	const name = "HOST:PORT with an IP address such as 127.0.0.1:50051"
	return scalar[string]{at: at, in: form{name: name, json: "string"}, parse: func(s string) (string, error) {
		host, port, err := net.SplitHostPort(s)
		n, portErr := strconv.ParseUint(port, 10, 16)
		if host == "localhost" {
			host = "127.0.0.1"
		}
		if err != nil || portErr != nil || n == 0 || net.ParseIP(host) == nil {
			return "", errors.New("must be " + name)
		}
		return net.JoinHostPort(host, port), nil
	}}
}

// registry is the URL of the module registry.
func registry(at *string) value {
	in := form{name: registryForm, json: "string"}
	return scalar[string]{at: at, in: in, parse: func(s string) (string, error) {
		_, err := RegistryPath(s)
		return s, err
	}}
}

const registryForm = "unix:// and an absolute path such as unix:///run/hsu-master/registry.sock"

// RegistryPath returns the path of the socket of a URL of the module registry.
func RegistryPath(url string) (string, error) {
	path, found := strings.CutPrefix(url, "unix://")
	if !found || !filepath.IsAbs(path) || strings.ContainsAny(path, "\x00\n?#%") || filepath.Clean(path) != path {
		return "", errors.New("must be " + registryForm)
	}
	return path, nil
}

// loopback reports whether only this host can reach an address.
func loopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	return net.ParseIP(host).IsLoopback()
}

// zone is the name of a time zone.
func zone(at **time.Location) value {
	const name = "a time zone such as Europe/Berlin, UTC or Local"
	return scalar[*time.Location]{
		at: at, in: form{name: name, json: "string"},
		parse: func(s string) (*time.Location, error) {
			if s == "" {
				return nil, errors.New("must be " + name)
			}
			l, err := time.LoadLocation(s)
			if err != nil {
				return nil, fmt.Errorf("is not known on this host: must be %s", name)
			}
			return l, nil
		},
	}
}

// unitsValue describes the units. Load reads them, because "defaults:" has to be merged into them first.
type unitsValue struct{}

func (unitsValue) form() form {
	return form{name: "a map of units", json: "object", items: &form{json: "object", keys: new(Unit).keys()}}
}

func (unitsValue) read(r *reader, n *node) {
	if n.kind == listNode || n.kind == textNode {
		hint := ", such as {search: {command: [./bin/search]}}"
		if named := n.items; len(named) > 0 && len(named[0].entries) == 1 && named[0].entries[0].value.kind == mapNode {
			hint = ": leave out the dashes"
		}
		r.fault(n, "must be a map of units by their names%s", hint)
		return
	}
	r.entries(n)
}
