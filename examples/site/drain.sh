#!/bin/sh
# Runs before web gets its signal.
echo "draining process $HSU_WORKER_PID, stop $(redis-cli -e -p "$STORE_PORT" incr stops)"
