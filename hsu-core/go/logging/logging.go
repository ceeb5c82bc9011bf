// Package logging is the narrow logger of the HSU packages: a program plugs its own logging in as functions
// and needs no logging library for it.
package logging

import "strings"

// The levels a [LogLevelFunc] is called with.
const (
	LogLevelDebug = 0
	LogLevelInfo  = 1
	LogLevelWarn  = 2
	LogLevelError = 3
)

// Logger writes messages that are formatted as by [fmt.Sprintf]. One made by [NewLogger] is as safe for
// concurrent use as the functions it was made of.
type Logger interface {
	// LogLevelf logs at one of the LogLevel constants; what is below or above them counts as the nearest.
	LogLevelf(level int, format string, args ...any)

	Debugf(msg string, args ...any)
	Infof(msg string, args ...any)
	Warnf(msg string, args ...any)
	Errorf(msg string, args ...any)
}

// LogLevelFunc logs a message, formatted as by [fmt.Sprintf], at one of the LogLevel constants.
type LogLevelFunc func(level int, format string, args ...any)

// LogFunc logs a message, formatted as by [fmt.Sprintf].
type LogFunc func(format string, args ...any)

// LogFuncs is where a [Logger] sends its messages. A set LogLevelf gets all of them and the others none; a
// level whose function is nil is dropped. The zero value drops everything.
type LogFuncs struct {
	LogLevelf LogLevelFunc

	Debugf LogFunc
	Infof  LogFunc
	Warnf  LogFunc
	Errorf LogFunc
}

// NewLogger returns a Logger that puts prefix, taken literally, right before each message, without a separator.
func NewLogger(prefix string, funcs LogFuncs) Logger {
	// The prefix travels inside the format, so that arguments which a format names by index keep their places.
	return &logger{prefix: strings.ReplaceAll(prefix, "%", "%%"), funcs: funcs}
}

type logger struct {
	prefix string // with % doubled
	funcs  LogFuncs
}

func (l *logger) LogLevelf(level int, format string, args ...any) {
	level = min(max(level, LogLevelDebug), LogLevelError)
	if l.funcs.LogLevelf != nil {
		l.funcs.LogLevelf(level, l.prefix+format, args...)
		return
	}
	log := [...]LogFunc{
		LogLevelDebug: l.funcs.Debugf,
		LogLevelInfo:  l.funcs.Infof,
		LogLevelWarn:  l.funcs.Warnf,
		LogLevelError: l.funcs.Errorf,
	}[level]
	if log != nil {
		log(l.prefix+format, args...)
	}
}

func (l *logger) Debugf(msg string, args ...any) { l.LogLevelf(LogLevelDebug, msg, args...) }
func (l *logger) Infof(msg string, args ...any)  { l.LogLevelf(LogLevelInfo, msg, args...) }
func (l *logger) Warnf(msg string, args ...any)  { l.LogLevelf(LogLevelWarn, msg, args...) }
func (l *logger) Errorf(msg string, args ...any) { l.LogLevelf(LogLevelError, msg, args...) }
