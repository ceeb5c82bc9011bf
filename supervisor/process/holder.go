package process

import (
	"strconv"

	"github.com/core-tools/hsu-master/internal/procfs"
)

// parseHolder returns a Holder with the values from the environment of a worker. It returns false if the
// environment has no token.
func parseHolder(environ []byte) (h Holder, ok bool) {
	if h.Token, ok = procfs.LookupEnv(environ, EnvWorkerToken); !ok {
		return Holder{}, false
	}
	h.MasterID, _ = procfs.LookupEnv(environ, EnvMasterID)
	h.StateDir, _ = procfs.LookupEnv(environ, EnvStateDir)
	h.WorkerID, _ = procfs.LookupEnv(environ, EnvWorkerID)
	if text, found := procfs.LookupEnv(environ, EnvWorkerPort); found {
		if port, err := strconv.ParseUint(text, 10, 16); err == nil {
			h.Port = int(port)
		}
	}
	return h, true
}
