package frames

import (
	"testing"

	"golang.org/x/net/http2"
)

func TestReadSettings(t *testing.T) {
	first := FirstSettings()
	for _, c := range []struct {
		name string
		in   []http2.Setting
		want Settings
		code http2.ErrCode
	}{
		{
			"none", nil,
			first, 0,
		},
		{
			"a window",
			[]http2.Setting{{ID: 4, Val: 7}},
			Settings{7, first.Streams, TableSize, TableSize, false},
			0,
		},
		{
			"the last of two windows",
			[]http2.Setting{{ID: 4, Val: 7}, {ID: 4, Val: 9}},
			Settings{9, first.Streams, TableSize, TableSize, false},
			0,
		},
		{
			"too large a window",
			[]http2.Setting{{ID: 4, Val: 1 << 31}},
			first, http2.ErrCodeFlowControl,
		},
		{
			"no streams",
			[]http2.Setting{{ID: 3, Val: 0}},
			Settings{FirstWindow, 0, TableSize, TableSize, false},
			0,
		},
		{
			"any number of streams",
			[]http2.Setting{{ID: 3, Val: 1<<32 - 1}},
			Settings{FirstWindow, UnboundedStreams, TableSize, TableSize, false},
			0,
		},
		{
			"a table",
			[]http2.Setting{{ID: 1, Val: 5}},
			Settings{FirstWindow, first.Streams, 5, 5, false},
			0,
		},
		{
			"a larger table",
			[]http2.Setting{{ID: 1, Val: 1<<32 - 1}},
			Settings{FirstWindow, first.Streams, TableSize, TableSize, false},
			0,
		},
		{
			"two tables",
			[]http2.Setting{{ID: 1, Val: 5}, {ID: 1, Val: 100}},
			Settings{FirstWindow, first.Streams, 100, 5, false},
			0,
		},
		{
			"push",
			[]http2.Setting{{ID: 2, Val: 2}},
			first, http2.ErrCodeProtocol,
		},
		{
			"frames",
			[]http2.Setting{{ID: 5, Val: 1}},
			first, http2.ErrCodeProtocol,
		},
		{
			"unknown",
			[]http2.Setting{{ID: 99, Val: 1}},
			first, 0,
		},
	} {
		got, err := first.Read(AppendSettings(nil, c.in...)[HeaderSize:])
		if fault, _ := err.(ConnError); fault.Code != c.code { //nolint:errorlint // a ConnError is never wrapped
			t.Errorf("%s: %v, want %v", c.name, err, c.code)
		}
		if err == nil && got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
