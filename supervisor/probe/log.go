package probe

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/core-tools/hsu-core/go/logging"
)

// CoreLogger lets hsu-core log through slog. Its info messages are about single calls, so they appear at debug
// level; warnings and errors keep their level.
func CoreLogger(log *slog.Logger) logging.Logger {
	at := func(level slog.Level) logging.LogFunc {
		return func(format string, args ...any) {
			if log.Enabled(context.Background(), level) {
				log.Log(context.Background(), level, "hsu-core", "text", fmt.Sprintf(format, args...))
			}
		}
	}
	return logging.NewLogger("", logging.LogFuncs{
		Debugf: at(slog.LevelDebug),
		Infof:  at(slog.LevelDebug),
		Warnf:  at(slog.LevelWarn),
		Errorf: at(slog.LevelError),
	})
}
