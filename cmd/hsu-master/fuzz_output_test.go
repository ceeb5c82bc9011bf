package main

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/describe"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
)

// FuzzShownState takes a State as a master or a damaged file may return it. The output must be valid JSON, or
// text that does not control the terminal.
func FuzzShownState(f *testing.F) {
	for _, s := range []*adminpb.State{
		{},
		{
			Source: "live", MasterId: "id",
			Workers: []*adminpb.Worker{{
				Id: "worker-0", Status: "failed", Reason: "it said \x1b[2J",
				LastOutput: []string{"\x1b]0;title\x07", "\u202e"},
				LastExit:   &adminpb.Exit{Known: true, Signal: new("SIGKILL\r")},
			}},
			Services: []*adminpb.Service{{
				Name: "a\tb", Endpoints: []*adminpb.Endpoint{{Address: "127.0.0.1:1", Worker: "w\n"}},
			}},
			BadRecords: map[string]string{"workers/\x00": "bad\x7f\u009b"},
		},
	} {
		b, err := proto.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var state adminpb.State
		if proto.Unmarshal(b, &state) != nil {
			return
		}
		var out bytes.Buffer
		if err := render.JSON(&out, stateToJSON(&state)); err != nil {
			t.Errorf("%v: %v", &state, err)
		}
		var back stateJSON
		if err := json.Unmarshal(out.Bytes(), &back); err != nil || len(back.Workers) != len(state.GetWorkers()) {
			t.Errorf("%v: printed as %s: %v", &state, out.String(), err)
		}
		out.Reset()
		now := time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)
		if err := describe.State(&out, &state, now); err != nil {
			t.Error(err)
		}
		out.WriteString(describe.Headline(&state, now))
		harmless(t, out.String())
	})
}
