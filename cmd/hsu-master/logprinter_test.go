package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/api/adminpb"
)

func logText(worker, text string) *adminpb.LogText {
	return &adminpb.LogText{Worker: worker, Text: []byte(text)}
}

func TestLogPrinter(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	long := strings.Repeat("x", 64)
	for name, test := range map[string]struct {
		p    logPrinter
		out  string
		errs string
		in   []*adminpb.LogText
	}{
		"one": {
			p: logPrinter{alone: "web-0"}, out: "a\nb\n",
			in: []*adminpb.LogText{logText("web-0", "a\nb\n")},
		},
		"several": {
			p: logPrinter{}, out: "web-0 | a\nservice-0 | b\nweb-0     | c\n",
			in: []*adminpb.LogText{logText("web-0", "a\n"), logText("service-0", "b\n"), logText("web-0", "c\n")},
		},
		"any bytes": {
			p: logPrinter{alone: "web-0"}, out: "\x1b[31m\xff\r\n",
			in: []*adminpb.LogText{logText("web-0", "\x1b[31m\xff\r\n")},
		},
		"a terminal": {
			p: logPrinter{alone: "web-0", terminal: true}, out: "\\x1b[31mé\t\\r\n",
			in: []*adminpb.LogText{logText("web-0", "\x1b[31mé\t\r\n")},
		},
		"colors": {
			p: logPrinter{terminal: true, color: true}, out: "\x1b[33mweb-0 |\x1b[0m a\n",
			in: []*adminpb.LogText{logText("web-0", "a\n")},
		},
		"a cut line": {
			p: logPrinter{}, out: "web-0 | " + long + "y\n",
			in: []*adminpb.LogText{logText("web-0", long), logText("web-0", "y\n")},
		},
		"a line between": {
			p: logPrinter{}, out: "web-0 | " + long + "\nweb-1 | z\nweb-0 | y\n",
			in: []*adminpb.LogText{logText("web-0", long), logText("web-1", "z\n"), logText("web-0", "y\n")},
		},
		"a notice": {
			p: logPrinter{}, out: "web-0 | " + long + "\n", errs: "hsu-master: web-0: gone\\n\n",
			in: []*adminpb.LogText{logText("web-0", long), {Worker: "web-0", Notice: "gone\n"}},
		},
		"JSON": {
			p: logPrinter{json: true}, out: `{"worker":"web-0","time":null,"line":"a\u001b\ufffd"}
{"worker":"web-0","time":"2026-03-01T12:00:00Z","line":"x","more":true}
{"worker":"web-0","time":null,"line":"","notice":"gone"}
`,
			in: []*adminpb.LogText{
				logText("web-0", "a\x1b\xff\n"),
				{Worker: "web-0", Text: []byte("x"), Time: timestamppb.New(noon)},
				{Worker: "web-0", Notice: "gone"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			test.p.w, test.p.errs, test.p.prefixes = &out, &errs, map[string]string{}
			// Whether texts come in one message or in several makes no difference.
			for _, text := range test.in[:len(test.in)-1] {
				if err := test.p.show(&adminpb.LogsResponse{Texts: []*adminpb.LogText{text}}); err != nil {
					t.Fatal(err)
				}
			}
			if err := test.p.show(&adminpb.LogsResponse{Texts: test.in[len(test.in)-1:]}); err != nil {
				t.Fatal(err)
			}
			if out.String() != test.out || errs.String() != test.errs {
				t.Errorf("%q and %q, want %q and %q", out.String(), errs.String(), test.out, test.errs)
			}
		})
	}
}
