#!/bin/sh
# Runs when web is gone, however it has ended.
echo "web has ended: ${HSU_EXIT_SIGNAL:-exit code ${HSU_EXIT_CODE:-unknown}}"
