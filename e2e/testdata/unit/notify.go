package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// pause returns the time between two WATCHDOG=1 that sd_watchdog_enabled(3) recommends.
func pause() time.Duration {
	usec, _ := strconv.Atoi(os.Getenv("WATCHDOG_USEC"))
	return time.Duration(usec) * time.Microsecond / 2
}

// tell does as a program for systemd does: it sends READY=1 once, whether or not it arrives, and WATCHDOG=1 from then
// on.
func tell() {
	send("READY=1\nWATCHDOG=1")
	for range time.Tick(pause()) {
		send("WATCHDOG=1")
	}
}

// notify sends the text that the test writes into the file ID.say to the notify socket of the worker, and creates
// ID.said when that is done. While the file ID.beat exists, it sends WATCHDOG=1.
func notify(record string) {
	name, last := filepath.Join(record, os.Getenv("HSU_WORKER_ID")), time.Time{}
	for {
		if text, err := os.ReadFile(name + ".say"); err == nil {
			send(string(text))
			_ = os.Rename(name+".say", name+".said")
		}
		if _, err := os.Stat(name + ".beat"); err == nil && time.Since(last) >= pause() {
			last = time.Now()
			send("WATCHDOG=1")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func send(text string) {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err == nil {
		_, err = conn.Write([]byte(text))
		_ = conn.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "unit:", err)
	}
}
