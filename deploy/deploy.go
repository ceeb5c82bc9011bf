// Package deploy holds the systemd units of hsu-master and writes them for other values than their defaults. The
// units' own comments say why each setting is as it is.
package deploy

import (
	_ "embed"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// ServiceName and SocketName are the names of the unit files. systemd goes by them.
	ServiceName = "hsu-master.service"
	SocketName  = "hsu-master.socket"
	// ListenerName is what LISTEN_FDNAMES calls the listener that the socket unit passes to the service.
	ListenerName = "grpc"
)

//go:embed hsu-master.service
var service string

//go:embed hsu-master.socket
var socket string

// Options are the values of an installation. The zero value stands for the committed units.
type Options struct {
	// ExecStart is the command line of the service: the absolute path of hsu-master, then its arguments. Each
	// arrives as it stands here, whatever it contains. Default: /usr/local/bin/hsu-master run.
	ExecStart []string
	// ListenStream is where the socket unit listens, as "127.0.0.1:50051" (the default) or "[::1]:50051".
	ListenStream string
	// StopGrace is the --stop-grace of ExecStart: systemd waits longer than that for a stop. Default: 10 s.
	StopGrace time.Duration
	// ReadWritePaths are folders besides the service's own in which the master and its workers may write,
	// absolute and existing: a --state-dir elsewhere, for example.
	ReadWritePaths []string
}

const defaultStopGrace = 10 * time.Second

// stopMargin is what a stop may take besides the grace period: calls in flight before it, the sweep for
// descendants after it, and the last commit.
const stopMargin = 20 * time.Second

// Service returns the service unit. The error names the value that a unit file cannot hold.
func Service(o Options) (string, error) {
	unit := service
	if len(o.ExecStart) > 0 {
		command, err := commandLine(o.ExecStart)
		if err != nil {
			return "", fmt.Errorf("ExecStart: %w", err)
		}
		unit = set(unit, "ExecStart", command)
	}
	if o.StopGrace < 0 {
		return "", fmt.Errorf("stop grace %v: is negative", o.StopGrace)
	}
	if o.StopGrace != 0 && o.StopGrace != defaultStopGrace {
		seconds := math.Ceil((o.StopGrace + stopMargin).Seconds())
		unit = set(unit, "TimeoutStopSec", fmt.Sprintf("%.0fs", seconds))
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
	return unit, nil
}

// Socket returns the socket unit. The error names the value that a unit file cannot hold.
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

// commandLine writes argv as the value of an Exec setting (systemd.service(5), "Command lines").
func commandLine(argv []string) (string, error) {
	program := argv[0]
	switch {
	case !path.IsAbs(program):
		return "", fmt.Errorf("%q: not an absolute path", program)
	case strings.ContainsAny(program, `"'\`) || strings.ContainsFunc(program, unicode.IsControl):
		return "", fmt.Errorf("%q: systemd takes no quotes, backslashes or control characters in a program's path", program)
	}
	words := slices.Clone(argv)
	if slices.ContainsFunc(words, func(s string) bool { return strings.Contains(s, "$") }) {
		// With a colon before it, systemd leaves every $ of the command alone. Doubling each instead would
		// be right for the arguments, and wrong for the program.
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

// pathWord writes a path as one word of a setting that lists paths. Those know fewer escapes than commands do.
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

// check refuses what no unit file can hold, and line breaks: systemd would take them as an escape, but nobody
// means them, and a unit file is read line by line by people too.
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

// quote writes one word so that systemd reads it back unchanged (systemd.syntax(7), "Quoting"). A word of its own
// that is ";" must be quoted, else it ends the command.
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
		case r == '%': // otherwise a specifier
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

// get returns the value of key in unit, which has it once.
func get(unit, key string) string {
	_, rest, _ := strings.Cut(unit, "\n"+key+"=")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

// set replaces the value of key in unit, which has it once.
func set(unit, key, value string) string {
	line := "\n" + key + "="
	return strings.Replace(unit, line+get(unit, key), line+value, 1)
}
