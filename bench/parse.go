package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// parseResident returns the Rss line of /proc/PID/smaps_rollup in bytes.
func parseResident(text []byte) (float64, error) {
	for line := range strings.Lines(string(text)) {
		rest, found := strings.CutPrefix(line, "Rss:")
		if !found {
			continue
		}
		number, unit, _ := strings.Cut(strings.TrimSpace(rest), " ")
		kib, err := strconv.ParseUint(number, 10, 53)
		if err != nil || unit != "kB" {
			return 0, fmt.Errorf("not a size: %q", strings.TrimSpace(line))
		}
		return float64(kib << 10), nil
	}
	return 0, errors.New("no line says Rss")
}

// parseLoad returns the three averages in /proc/loadavg.
func parseLoad(text string) (string, error) {
	fields := strings.Fields(text)
	if len(fields) < 3 {
		return "", fmt.Errorf("not load averages: %q", text)
	}
	return strings.Join(fields[:3], " "), nil
}

// processorTimes are the ticks of all processors since boot.
type processorTimes struct{ idle, stolen, all float64 }

// busySince returns the share of time that processes on this machine used.
func (t processorTimes) busySince(before processorTimes) float64 {
	return 1 - (t.idle-before.idle)/max(1, t.all-before.all)
}

// stolenSince returns the share of time that the hypervisor gave to other machines.
func (t processorTimes) stolenSince(before processorTimes) float64 {
	return (t.stolen - before.stolen) / max(1, t.all-before.all)
}

// parseProcessors reads the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal; the
// fields after these are included in user.
func parseProcessors(text string) (processorTimes, error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return processorTimes{}, fmt.Errorf("not the times of all processors: %q", line)
	}
	var t processorTimes
	for i, field := range fields[1:9] {
		ticks, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return processorTimes{}, fmt.Errorf("times of all processors: %w", err)
		}
		t.all += ticks
		switch i {
		case 3, 4:
			t.idle += ticks
		case 7:
			t.stolen = ticks
		}
	}
	return t, nil
}

// logLine is the part of a line of the master's log (--log-format json) that the bench reads.
type logLine struct {
	Message string `json:"msg"`
	Worker  string `json:"worker"`
	PID     int    `json:"pid"`
	Port    int    `json:"port"`
}

// The master's log messages that the bench waits for.
const (
	messageStarted = "worker started" // its process was started; the record follows
	messageRunning = "worker running" // it has become ready
)

// parseLog reports whether the line is about a worker that has become ready, and returns it.
func parseLog(line []byte) (logLine, bool) {
	var parsed logLine
	if err := json.Unmarshal(line, &parsed); err != nil {
		return logLine{}, false
	}
	return parsed, parsed.Message == messageRunning && parsed.Worker != ""
}
