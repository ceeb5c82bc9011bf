#!/bin/sh
# The nightly job.
echo "schema $(redis-cli -e -p "$STORE_PORT" get schema)"
