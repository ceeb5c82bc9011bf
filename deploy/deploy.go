// Package deploy contains the systemd units of hsu-master, and renders them with other values than the defaults.
// Comments in the units explain each setting.
package deploy

import (
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
	// ServiceName and SocketName are the file names of the units, by which systemd identifies them.
	ServiceName = "hsu-master.service"
	SocketName  = "hsu-master.socket"
	// ListenerName is the name in LISTEN_FDNAMES of the listener that the socket unit passes to the service.
	ListenerName = "grpc"
)

//go:embed hsu-master.service
var service string

//go:embed hsu-master.socket
var socket string

// Options are the values of an installation. The zero value renders the units as they are in this folder.
type Options struct {
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
	// ReadPaths are files that the service reads besides those in ExecStart. If any path in ExecStart,
	// ReadWritePaths or ReadPaths is in a home folder, the service can read home folders; otherwise they are
	// hidden from it.
	ReadPaths []string
}

const defaultStopGrace = 10 * time.Second

// stopMargin is the time that a stop may take beyond the grace period: for calls in flight before it, and for
// terminating descendants and the last commit after it.
const stopMargin = 20 * time.Second

// inHome matches a path that ProtectHome=yes hides (systemd.exec(5)), also if a flag's name precedes it.
var inHome = regexp.MustCompile(`(^|[^A-Za-z0-9._/-])/+(home|root|run/+user)(/|$)`)

// userName matches a user name or a numeric user id that systemd accepts (systemd.exec(5), "User=").
var userName = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_-]{0,30}|[0-9]{1,10})$`)

// Service returns the service unit. The error names the value that cannot be written to a unit file.
func Service(o Options) (string, error) {
	unit := service
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
	if len(o.ReadWritePaths) > 0 {
		words := []string{get(unit, "ReadWritePaths")}
		for _, p := range o.ReadWritePaths {
			word, err := pathWord(p)
			if err != nil {
				return "", fmt.Errorf("path to write in: %w", err)
			}
			words = append(words, word)
		}
		unit = set(unit, "ReadWritePaths", strings.Join(words, " "))
	}
	if slices.ContainsFunc(slices.Concat(o.ExecStart, o.ReadWritePaths, o.ReadPaths), inHome.MatchString) {
		unit = set(unit, "ProtectHome", "read-only")
	}
	return unit, nil
}

// Socket returns the socket unit. The error names the value that cannot be written to a unit file.
func Socket(o Options) (string, error) {
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

// pathWord formats a path as one word of a setting that lists paths. Such settings support fewer escapes than
// commands.
func pathWord(p string) (string, error) {
	if err := check(p); err != nil {
		return "", err
	}
	if !path.IsAbs(p) {
		return "", fmt.Errorf("%q: not an absolute path", p)
	}
	if strings.ContainsFunc(p, unicode.IsControl) {
		return "", fmt.Errorf("%q: contains a control character", p)
	}
	return quote(p), nil
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
