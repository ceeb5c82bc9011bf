package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// notify sends what the test writes into the file ID.say to the notify socket of the worker, and creates ID.said when
// that is done. While the file ID.beat exists, it sends WATCHDOG=1 as often as sd_watchdog_enabled(3) recommends.
func notify(record string) {
	name := filepath.Join(record, os.Getenv("HSU_WORKER_ID"))
	usec, _ := strconv.Atoi(os.Getenv("WATCHDOG_USEC"))
	pause, last := time.Duration(usec)*time.Microsecond/2, time.Time{}
	for {
		if text, err := os.ReadFile(name + ".say"); err == nil {
			send(string(text))
			_ = os.Rename(name+".say", name+".said")
		}
		if _, err := os.Stat(name + ".beat"); err == nil && time.Since(last) >= pause {
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
