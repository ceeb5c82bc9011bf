// Package deploy contains the systemd units of hsu-master, and renders them with other values than the defaults.
// Comments in the units explain each setting.
package deploy

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// DefaultName is the name of the units of an installation without a name of its own.
	DefaultName = "hsu-master"
	// ListenerName is the name in LISTEN_FDNAMES of the listener that the socket unit passes to the service.
	ListenerName = "grpc"
)

//go:embed hsu-master.service
var service string

//go:embed hsu-master.socket
var socket string

// Options are the values of an installation. The zero value renders the units as they are in this folder.
type Options struct {
	// Name is the name of both units, and of the folders of the service: see [CheckName]. Default: hsu-master.
	Name string
	// ExecStart is the command line of the service: the absolute path of hsu-master, then its arguments. Each
	// argument is passed unchanged, whatever it contains. Default: /usr/local/bin/hsu-master run.
	ExecStart []string
	// ExecReload is the command line of a reload. Default: /usr/local/bin/hsu-master reload.
	ExecReload []string
	// ListenStream is the address that the socket unit listens on, such as "127.0.0.1:50051" (the default) or
	// "[::1]:50051".
	ListenStream string
	// StopGrace is the --stop-grace of ExecStart. The stop timeout of the unit is longer than it. Default: 10 s.
	StopGrace time.Duration
	// User is the user that the service and its workers run as. Default: root.
	User string
	// ReadWritePaths are folders in which the master and its workers may write, besides the service's own
	// folders. They must be absolute and exist; an example is a --state-dir elsewhere.
	ReadWritePaths []string
	// Writable are folders in which the workers may write. They must be absolute. The service starts without those
	// that are missing.
	Writable []string
	// Rights are the rights that the workers need besides those of the user.
	Rights Rights
	// ReadPaths are files that the service reads besides those in ExecStart. If any path in ExecStart,
	// ReadWritePaths, Writable or ReadPaths is in a home folder, the service can read home folders; otherwise they are
	// hidden from it.
	ReadPaths []string
}

// Rights are rights that the units of a configuration file ask for. The zero value asks for none.
type Rights struct {
	// Capabilities are names of capabilities(7), such as CAP_SETUID, that the master has to have.
	Capabilities []string
	// Privileged and Resources lift the filter of system calls for the sets @privileged and @resources.
	Privileged, Resources bool
	// OpenFiles is the largest limit of open files that a worker gets, if it is above the hard limit that systemd gives
	// to services; else 0.
	OpenFiles uint64
	// Enter lets all users pass the runtime folder, to sockets in it that are theirs. They cannot list it.
	Enter bool
}

// ServiceFiles is the hard limit of open files that systemd gives to services: DefaultLimitNOFILE=.
const ServiceFiles = 524288

// IsZero reports whether no rights are asked for.
func (r Rights) IsZero() bool {
	return len(r.Capabilities) == 0 && !r.Privileged && !r.Resources && r.OpenFiles == 0 && !r.Enter
}

const defaultStopGrace = 10 * time.Second

// stopMargin is the time that a stop may take beyond the grace period: for calls in flight before it, and for
// terminating descendants and the last commit after it.
const stopMargin = 20 * time.Second

// inHome matches a path that ProtectHome=yes hides (systemd.exec(5)), also if a flag's name precedes it.
var inHome = regexp.MustCompile(`(^|[^A-Za-z0-9._/-])/+(home|root|run/+user)(/|$)`)

// userName matches a user name or a numeric user id that systemd accepts (systemd.exec(5), "User=").
var userName = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_-]{0,30}|[0-9]{1,10})$`)

// maxName keeps the path of the admin socket, /run/NAME/admin.sock, shorter than the 108 bytes that the kernel allows.
const maxName = 64

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// unitTypes are the suffixes by which systemd tells the types of units (systemd.unit(5)).
var unitTypes = []string{
	".service", ".socket", ".device", ".mount", ".automount", ".swap", ".target", ".path", ".timer", ".slice", ".scope",
}

// CheckName returns an error if units cannot have the name. A name is that of a folder too, so it is stricter than
// systemd.unit(5): no colon, "@" or backslash.
func CheckName(name string) error {
	switch {
	case len(name) > maxName:
		return fmt.Errorf("%.20q...: is longer than %d characters", name, maxName)
	case !validName.MatchString(name):
		return fmt.Errorf("%q: must be letters, digits, and - _ . after the first character", name)
	}
	for _, suffix := range unitTypes {
		if strings.HasSuffix(name, suffix) {
			return fmt.Errorf("%q: is given without %s, which the units get", name, suffix)
		}
	}
	return nil
}

// ServiceName returns the file name of the service unit, by which systemd identifies it.
func (o Options) ServiceName() string { return o.name() + ".service" }

// SocketName returns the file name of the socket unit.
func (o Options) SocketName() string { return o.name() + ".socket" }

func (o Options) name() string { return cmp.Or(o.Name, DefaultName) }

// IsOurs reports whether a unit file was made of one of this folder.
func IsOurs(unit string) bool { return get(unit, "Documentation") == get(service, "Documentation") }

// unitNames matches the names of both units.
var unitNames = regexp.MustCompile(`\b` + DefaultName + `\.(service|socket)\b`)

// named returns a unit with the name of the installation in place of the default.
func (o Options) named(unit string) (string, error) {
	name := o.name()
	if name == DefaultName {
		return unit, nil
	}
	if err := CheckName(name); err != nil {
		return "", fmt.Errorf("name %w", err)
	}
	unit = unitNames.ReplaceAllString(unit, name+".$1")
	return set(unit, "Description", strings.Replace(get(unit, "Description"), "HSU master", "HSU master "+name, 1)), nil
}

// Service returns the service unit. The error names the value that cannot be written to a unit file.
func Service(o Options) (string, error) {
	unit, err := o.named(service)
	if err != nil {
		return "", err
	}
	for _, key := range []string{"StateDirectory", "RuntimeDirectory", "SyslogIdentifier"} {
		unit = set(unit, key, o.name())
	}
	unit = set(unit, "EnvironmentFile", "-"+o.EnvironmentFile())
	for key, argv := range map[string][]string{"ExecStart": o.ExecStart, "ExecReload": o.ExecReload} {
		if len(argv) == 0 {
			continue
		}
		command, err := commandLine(argv)
		if err != nil {
			return "", fmt.Errorf("%s: %w", key, err)
		}
		unit = set(unit, key, command)
	}
	if o.StopGrace < 0 {
		return "", fmt.Errorf("stop grace %v: is negative", o.StopGrace)
	}
	if o.StopGrace != 0 && o.StopGrace != defaultStopGrace {
		seconds := math.Ceil((o.StopGrace + stopMargin).Seconds())
		unit = set(unit, "TimeoutStopSec", fmt.Sprintf("%.0fs", seconds))
	}
	if o.User != "" {
		if !userName.MatchString(o.User) {
			return "", fmt.Errorf("user %q: not a name of a user", o.User)
		}
		unit = set(unit, "User", o.User)
	}
	words := []string{get(unit, "ReadWritePaths")}
	for _, p := range o.ReadWritePaths {
		word, err := pathWord("", p)
		if err != nil {
			return "", fmt.Errorf("path to write in: %w", err)
		}
		words = append(words, word)
	}
	for _, p := range o.Writable {
		word, err := pathWord("-", p)
		if err != nil {
			return "", fmt.Errorf("path to write in: %w", err)
		}
		words = append(words, word)
	}
	unit = set(unit, "ReadWritePaths", strings.Join(words, " "))
	unit = o.Rights.grant(unit)
	if slices.ContainsFunc(slices.Concat(o.ExecStart, o.ReadWritePaths, o.Writable, o.ReadPaths), inHome.MatchString) {
		unit = set(unit, "ProtectHome", "read-only")
	}
	return unit, nil
}

// EnvironmentFile returns the path of the file with variables for the master.
func (o Options) EnvironmentFile() string { return "/etc/default/" + o.name() }

// filterOut is the setting that takes the rights of [Rights] away.
const filterOut = "\nSystemCallFilter=~@privileged @resources\n"

// capSetUID is the capability to start processes of other users.
const capSetUID = "CAP_SETUID"

// grant returns the service with the rights.
func (r Rights) grant(unit string) string {
	if r.OpenFiles != 0 {
		limit := get(unit, "WatchdogSec") + fmt.Sprintf("\nLimitNOFILE=1024:%d", r.OpenFiles)
		unit = set(unit, "WatchdogSec", limit)
	}
	if r.Enter {
		unit = set(unit, "RuntimeDirectoryMode", "0711")
	}
	if len(r.Capabilities) > 0 {
		unit = set(unit, "CapabilityBoundingSet", strings.Join(r.Capabilities, " "))
	}
	if slices.Contains(r.Capabilities, capSetUID) {
		// systemd 257 takes it from a service with User=root unless it is ambient. The kernel takes it from each worker
		// that gets another user (capabilities(7)).
		unit = set(unit, "AmbientCapabilities", capSetUID)
	}
	var refused []string
	if !r.Privileged {
		refused = append(refused, "@privileged")
	}
	if !r.Resources {
		refused = append(refused, "@resources")
	}
	filter := "\n"
	if len(refused) > 0 {
		filter = "\nSystemCallFilter=~" + strings.Join(refused, " ") + "\n"
	}
	return strings.Replace(unit, filterOut, filter, 1)
}

// Socket returns the socket unit. The error names the value that cannot be written to a unit file.
func Socket(o Options) (string, error) {
	socket, err := o.named(socket)
	if err != nil {
		return "", err
	}
	if o.ListenStream == "" {
		return socket, nil
	}
	address, err := netip.ParseAddrPort(o.ListenStream)
	switch {
	case err != nil:
		return "", fmt.Errorf("ListenStream %q: not an IP address and a port such as 127.0.0.1:50051", o.ListenStream)
	case address.Port() == 0:
		return "", fmt.Errorf("ListenStream %q: port 0 is none that callers could know", o.ListenStream)
	case address.Addr().Zone() != "":
		return "", fmt.Errorf("ListenStream %q: systemd takes no zone there", o.ListenStream)
	}
	return set(socket, "ListenStream", address.String()), nil
}

// commandLine formats argv as the value of an Exec setting (systemd.service(5), "Command lines").
func commandLine(argv []string) (string, error) {
	program := argv[0]
	switch {
	case !path.IsAbs(program):
		return "", fmt.Errorf("%q: not an absolute path", program)
	case strings.ContainsAny(program, `"'\`) || strings.ContainsFunc(program, unicode.IsControl):
		return "", fmt.Errorf("%q: systemd takes no quotes, backslashes "+
			"or control characters in a program's path", program)
	}
	words := slices.Clone(argv)
	if slices.ContainsFunc(words, func(s string) bool { return strings.Contains(s, "$") }) {
		// With a colon prefix, systemd expands no variables in the command. Doubling each $ instead would be
		// right for the arguments but wrong for the program.
		words[0] = ":" + program
	}
	for i, word := range words {
		if err := check(word); err != nil {
			return "", err
		}
		words[i] = quote(word)
	}
	return strings.Join(words, " "), nil
}

// pathWord formats a path with a prefix as one word of a setting that lists paths. Such settings support fewer escapes
// than commands.
func pathWord(prefix, p string) (string, error) {
	if err := check(p); err != nil {
		return "", err
	}
	if !path.IsAbs(p) {
		return "", fmt.Errorf("%q: not an absolute path", p)
	}
	if strings.ContainsFunc(p, unicode.IsControl) {
		return "", fmt.Errorf("%q: contains a control character", p)
	}
	return quote(prefix + p), nil
}

// check refuses text that no unit file can hold. It also refuses line breaks: systemd accepts them as an escape,
// but they are hardly ever intended, and they make the unit hard to read.
func check(word string) error {
	var err error
	switch {
	case !utf8.ValidString(word):
		err = errors.New("not valid UTF-8")
	case strings.Contains(word, "\x00"):
		err = errors.New("contains a NUL character")
	case strings.ContainsAny(word, "\n\r"):
		err = errors.New("contains a line break")
	default:
		return nil
	}
	return fmt.Errorf("%q: %w", word, err)
}

// quote formats a word so that systemd reads it back unchanged (systemd.syntax(7), "Quoting"). A word that is
// only ";" must be quoted, because it would end the command.
func quote(word string) string {
	plain := word != "" && !strings.ContainsFunc(word, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		return !letter && !strings.ContainsRune("-_./:,=@+%", r)
	})
	if plain {
		return strings.ReplaceAll(word, "%", "%%")
	}
	var quoted strings.Builder
	quoted.WriteByte('"')
	for _, r := range word {
		switch {
		case r == '"' || r == '\\':
			quoted.WriteByte('\\')
			quoted.WriteRune(r)
		case r == '%': // otherwise it would begin a specifier
			quoted.WriteString("%%")
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&quoted, `\x%02x`, r)
		default:
			quoted.WriteRune(r)
		}
	}
	quoted.WriteByte('"')
	return quoted.String()
}

// get returns the value of key in unit. The key must occur once.
func get(unit, key string) string {
	_, rest, _ := strings.Cut(unit, "\n"+key+"=")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

// set replaces the value of key in unit. The key must occur once.
func set(unit, key, value string) string {
	line := "\n" + key + "="
	return strings.Replace(unit, line+get(unit, key), line+value, 1)
}
