package launcher

import (
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
)

// The input is read only and complete: a command that asks for its size finds it, and stdin lacks O_NONBLOCK.
func TestInputIsBlocking(t *testing.T) {
	token := NewToken()
	ran, err := runWithInput(t.Context(), oneshot.Spec{Spec: process.Spec{
		Path: "/bin/sh", Args: []string{"-c", "grep flags /proc/self/fdinfo/0; cat; stat -Lc /%s /dev/stdin"},
		Env: []string{"PATH=/usr/bin:/bin", process.EnvWorkerToken + "=" + token},
	}}, token, []byte("the input"))
	if err != nil || ran.Exit != (identity.Exit{Source: identity.ExitWait}) {
		t.Fatalf("%+v, %v", ran, err)
	}
	// O_RDONLY, perhaps with O_LARGEFILE, which some architectures show.
	flags, input, _ := strings.Cut(string(ran.Output), "\n")
	if flags = strings.TrimSpace(strings.TrimPrefix(flags, "flags:")); strings.TrimLeft(flags, "0") != "" &&
		strings.TrimLeft(flags, "0") != "100000" || input != "the input/9\n" {
		t.Errorf("flags %s, input %q", flags, input)
	}
}
