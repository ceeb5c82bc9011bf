#!/bin/sh
# Brings the store to the present schema. It can run twice: it may have been cut off.
exec redis-cli -e -p "$STORE_PORT" set schema 2
