package process

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Other processes control these texts by their names, titles and environments. The tests compare the parsers with
// a plain parser of the same text.

// maxValue is the length of the longest value that [procfs.LookupEnv] returns.
const maxValue = 256

func FuzzParseHolder(f *testing.F) {
	f.Add([]byte("PATH=/bin\x00HSU_MASTER_ID=m\x00HSU_STATE_DIR=1:2\x00HSU_WORKER_ID=worker-0\x00" +
		"HSU_WORKER_TOKEN=t\x00HSU_WORKER_PORT=40001\x00"))
	f.Fuzz(func(t *testing.T, environ []byte) {
		h, ok := parseHolder(environ)
		token, wantOK := plainEnv(environ, EnvWorkerToken)
		if ok != wantOK {
			t.Fatalf("%+v, %v, want token %q, %v", h, ok, token, wantOK)
		}
		want := Holder{Token: token}
		if ok {
			want.MasterID, _ = plainEnv(environ, EnvMasterID)
			want.StateDir, _ = plainEnv(environ, EnvStateDir)
			want.WorkerID, _ = plainEnv(environ, EnvWorkerID)
			port, _ := plainEnv(environ, EnvWorkerPort)
			if n, err := strconv.ParseUint(port, 10, 16); err == nil {
				want.Port = int(n)
			}
		}
		if h != want {
			t.Errorf("%+v, want %+v", h, want)
		}
		for _, value := range []string{h.Token, h.MasterID, h.StateDir, h.WorkerID} {
			if len(value) > maxValue || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
				t.Errorf("value %q is not safe to log", value)
			}
		}
	})
}

var safeValue = regexp.MustCompile(`^[!-~]{1,256}$`)

// plainEnv returns the result of getenv if that is safe.
func plainEnv(environ []byte, name string) (string, bool) {
	for entry := range strings.SplitSeq(string(environ), "\x00") {
		if value, found := strings.CutPrefix(entry, name+"="); found {
			if !safeValue.MatchString(value) {
				return "", false
			}
			return value, true
		}
	}
	return "", false
}
