//go:build e2e && linux

package world

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/e2e/harness"
)

// A custom master: another module, with another business service of the same name, built on the supervisor and the
// store of this module.
func TestMasterOfOnesOwnSurvivesKillNineLikeThisOne(t *testing.T) {
	t.Parallel()
	const module = harness.Repository + "/examples/custom-master"
	vet := exec.CommandContext(t.Context(), "go", "vet", "./...")
	vet.Dir = module
	if output, err := vet.CombinedOutput(); err != nil {
		t.Fatalf("vet: %v\n%s", err, output)
	}
	h := harness.NewHost(t)
	program := filepath.Join(h.Dir, "custom-master")
	if err := harness.Build(module, program, "", "."); err != nil {
		t.Fatal(err)
	}
	start := func() *harness.Master {
		return h.Exec(program, nil, "--port", strconv.Itoa(h.Port), "--state-dir", h.State, "--workers", "2")
	}
	m := start()
	before := workersThatSummarize(h, 2)
	client := proto.NewMyBusinessServiceClient(h.Dial())
	process := func(data string) {
		t.Helper()
		// The generated code differs, the wire format is the same.
		answer, err := client.ProcessData(t.Context(), &proto.ProcessRequest{Data: data}, grpc.WaitForReady(true))
		if err != nil || answer.GetResult() != "Done: "+data {
			t.Errorf("ProcessData = %v, %v", answer, err)
		}
	}
	process("one")
	if r := h.CLI("state", "dump"); r.Code != 4 ||
		!strings.Contains(r.Stderr, fmt.Sprintf("a master holds the state (pid %d)", m.PID)) {
		t.Errorf("a dump of it: exit code %d, %q, want 4 and its pid: it has no admin socket", r.Code, r.Stderr)
	}
	m.Kill()

	offline := h.Dump()
	if offline.ProcessedCount != 1 || len(offline.Workers) != 2 {
		t.Errorf("its state = %+v, want one request and two workers", offline)
	}
	m = start()
	if after := workersThatSummarize(h, 2); !slices.Equal(before, after) {
		t.Errorf("its workers are %v, and were %v", after, before)
	}
	process("two")
	status, err := client.GetStatus(t.Context(), &proto.StatusRequest{})
	if err != nil || status.GetProcessedCount() != 2 || status.GetStatus() != "running" {
		t.Errorf("GetStatus = %v, %v, want running and 2", status, err)
	}
	m.Stop()
	h.WantNothingLeft()
}

// workersThatSummarize calls the method that only this master has, until n workers have answered, and returns their
// PIDs in order.
func workersThatSummarize(h *harness.Host, n int) (pids []int) {
	h.T.Helper()
	conn := h.Dial()
	harness.WaitFor(h.T, fmt.Sprintf("%d workers summarize", n), func() error {
		ctx, cancel := context.WithTimeout(h.T.Context(), time.Second)
		defer cancel()
		request := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "to be or not to be")
		var answer []byte
		if err := conn.Invoke(ctx, "/proto.MyBusinessService/Summarize", &request, &answer, grpc.ForceCodec(raw{}),
			grpc.WaitForReady(true)); err != nil {
			return err
		}
		words, pid, err := summary(answer)
		if err != nil || words != 6 {
			h.T.Fatalf("Summarize = %d words, %v, want 6", words, err)
		}
		if !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
		if len(pids) < n {
			return fmt.Errorf("%d have: %v", len(pids), pids)
		}
		return nil
	})
	slices.Sort(pids)
	return pids
}

// summary reads the fields words=1 and worker_pid=2.
func summary(message []byte) (words, pid int, err error) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 || kind != protowire.VarintType {
			return 0, 0, errors.New("not a summary")
		}
		message = message[n:]
		value, n := protowire.ConsumeVarint(message)
		if n < 0 {
			return 0, 0, protowire.ParseError(n)
		}
		message = message[n:]
		if number == 1 {
			words = int(value)
		} else {
			pid = int(value)
		}
	}
	return words, pid, nil
}

// raw sends and receives bytes unchanged: the example's generated code cannot be imported here, because it
// registers the same names as this module's.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = slices.Clone(data)
	return nil
}

func (raw) Name() string { return "proto" }
