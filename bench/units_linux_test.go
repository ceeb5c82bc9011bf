package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/config"
	"github.com/core-tools/hsu-master/supervisor/logs/layout"
)

func loadText(t *testing.T, text string) *config.File {
	t.Helper()
	file, err := config.Load("/hsu-master.yaml", hostOf(text))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestConfigTextHasItsUnits(t *testing.T) {
	for _, n := range []int{1, fewerUnits, manyUnits} {
		if got := len(loadText(t, configText(n)).Units); got != n {
			t.Errorf("the file of %d units has %d", n, got)
		}
	}
}

func TestUnitsTextIsMixed(t *testing.T) {
	for _, integrated := range []int{fleetSize / 2, fleetSize} {
		count := map[config.Kind]int{}
		checks := map[config.HealthType]bool{}
		for _, u := range loadText(t, unitsText(integrated, "/bin/worker", "127.0.0.1:1")).Units {
			count[u.Kind] += u.Replicas
			if u.Kind == config.Managed {
				checks[u.Health.Type] = true
			}
		}
		managed := fleetSize - integrated
		if count[config.Integrated] != integrated || count[config.Managed] != managed {
			t.Errorf("with %d integrated units there are %v", integrated, count)
		}
		if managed > 0 && len(checks) != 3 {
			t.Errorf("managed units are checked by %v only", checks)
		}
	}
}

func TestLineChecker(t *testing.T) {
	const count = 5
	lines := make([][]byte, count)
	for i := range lines {
		lines[i] = blankLine()
		number(lines[i], i+1)
	}
	torn := slices.Clone(lines)
	torn[2] = append(bytes.Clone(lines[2][:40]), lines[2][60:]...)
	for _, test := range []struct {
		name  string
		lines [][]byte
		want  string // part of the error
	}{
		{name: "whole", lines: lines},
		{"lost", slices.Concat(lines[:1], lines[2:]), "line 2 is"},
		{"twice", slices.Concat(lines[:2], lines[1:]), "line 3 is"},
		{"torn", torn, "line 3 is"},
		{"short", lines[:count-1], "4 lines of 5 are left, and 0 bytes"},
		{"cut", slices.Concat(lines[:count-1], [][]byte{lines[count-1][:7]}), "4 lines of 5 are left, and 7 bytes"},
	} {
		for _, piece := range []int{1, 33, lineSize, 1000} {
			c := lineChecker{want: blankLine()}
			var err error
			for part := range slices.Chunk(slices.Concat(test.lines...), piece) {
				if _, err = c.Write(part); err != nil {
					break
				}
			}
			if err == nil {
				err = c.complete(count)
			}
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s in pieces of %d: error %v, want %q", test.name, piece, err, test.want)
			}
		}
	}
}

// A file that is being compressed is there twice for a moment, and was rotated once.
func TestRotationsOfFilesBeingCompressed(t *testing.T) {
	files := layout.Files{Rotated: []layout.Rotated{
		{N: 1, Path: "log.1.gz", Compressed: true}, {N: 2, Path: "log.2.gz", Compressed: true}, {N: 2, Path: "log.2"},
	}}
	if got := rotationsOf(files); got != 2 {
		t.Errorf("%d rotations, want 2", got)
	}
	if got := rotationsOf(layout.Files{}); got != 0 {
		t.Errorf("%d rotations of a new log, want 0", got)
	}
}

func TestFewerRoundsAreOfExperiments(t *testing.T) {
	names := map[string]bool{}
	for _, e := range experiments {
		names[e.name] = true
	}
	for name := range fewerRounds {
		if !names[name] {
			t.Errorf("no experiment has the name %q", name)
		}
	}
}
