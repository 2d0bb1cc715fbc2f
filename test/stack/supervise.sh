#!/bin/sh
# Runs one server that must not outlive the process which started it, not even when that is SIGKILLed.
# The starter holds our standard input open. When that ends, the server is killed.
# The first and only line on standard output is the server's own process id; its output goes to our standard error.
exec 3<&0
"$@" <&3 3<&- >&2 &
server=$!
(
  while read -r _ <&3; do :; done
  kill -9 "$server"
) >/dev/null 2>&1 &
watch=$!
echo "$server"
exec <&- 3<&- >&-
wait "$server"
status=$?
kill -9 "$watch"
exit "$status"
