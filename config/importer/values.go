package importer

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// setSeconds sets a duration that is given in seconds.
func setSeconds(b *block, key, value string) error {
	if n, err := strconv.ParseUint(value, 10, 31); err == nil {
		b.set(key, seconds(int(n)))
		return nil
	}
	return errors.New("must be a number of seconds")
}

// startTimeout is the default of our start.timeout, in seconds.
const startTimeout = 30

// seconds returns a duration as our file has it.
func seconds(n int) string { return strconv.Itoa(n) + "s" }

func number(n int) text { return literal(strconv.Itoa(n)) }

func isTrue(s string) bool {
	return slices.Contains([]string{"yes", "true", "on", "1", "y"}, strings.ToLower(s))
}

func isFalse(s string) bool {
	return slices.Contains([]string{"no", "false", "off", "0", "n"}, strings.ToLower(s))
}

// octal returns a umask with the digits that our file wants.
func octal(s string) string {
	digits := strings.TrimPrefix(strings.ToLower(s), "0o")
	if len(digits) < 4 {
		digits = strings.Repeat("0", 4-len(digits)) + digits
	}
	return digits
}

// byteSize returns a size of supervisord, whose units are powers of 1024, as our file has it.
func byteSize(s string) string {
	lower := strings.ToLower(s)
	for suffix, unit := range map[string]string{"kb": "KiB", "mb": "MiB", "gb": "GiB"} {
		if digits, found := strings.CutSuffix(lower, suffix); found {
			return strings.TrimSpace(digits) + unit
		}
	}
	return s + "B"
}

func logLevel(s string) string {
	switch level := strings.ToLower(s); level {
	case "trace", "blather":
		return "debug"
	case "critical", "fatal", "panic", "crit":
		return "error"
	case "warning":
		return "warn"
	default:
		return level
	}
}

// signalNames are the signals that supervisord and process-compose can have as numbers.
var signalNames = map[string]string{
	"1": "HUP", "2": "INT", "3": "QUIT", "6": "ABRT", "9": "KILL", "10": "USR1", "12": "USR2", "14": "ALRM",
	"15": "TERM", "18": "CONT", "19": "STOP",
}

func signalName(s string) string {
	if name := signalNames[s]; name != "" {
		return name
	}
	return strings.TrimPrefix(strings.ToUpper(s), "SIG")
}
