// Package logging is the minimal logger of the HSU packages: a program supplies its own logging as functions, so
// the packages need no logging library.
package logging

import "strings"

// The levels that a [LogLevelFunc] is called with.
const (
	LogLevelDebug = 0
	LogLevelInfo  = 1
	LogLevelWarn  = 2
	LogLevelError = 3
)

// Logger writes messages that are formatted as by [fmt.Sprintf]. A Logger of [NewLogger] is safe for concurrent use
// if its functions are.
type Logger interface {
	// LogLevelf logs at one of the LogLevel constants; a level beyond them counts as the nearest one.
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

// LogFuncs are the functions that a [Logger] calls. If LogLevelf is set, it gets all messages and the other
// functions get none. A message at a level whose function is nil is dropped. The zero value drops all messages.
type LogFuncs struct {
	LogLevelf LogLevelFunc

	Debugf LogFunc
	Infof  LogFunc
	Warnf  LogFunc
	Errorf LogFunc
}

// NewLogger returns a Logger that puts prefix, taken literally, in front of each message, without a separator.
func NewLogger(prefix string, funcs LogFuncs) Logger {
	// The prefix is part of the format, so that arguments which a format refers to by index keep their positions.
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
