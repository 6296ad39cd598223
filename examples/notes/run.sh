#!/bin/sh
# Serves the notes example with the customers alice and bob, and says what to try.
# Run from the top of the repository by `make run`, which builds both programs.
set -eu

config=examples/notes/tenement.toml
ten="bin/ten"

"$ten" serve --config "$config" "$@" &
daemon=$!
trap 'kill -TERM "$daemon" 2>/dev/null || true' INT TERM

# The daemon serves its socket when it is up; it ends by itself when it cannot be.
until "$ten" ps --config "$config" >/dev/null 2>&1; do
	kill -0 "$daemon" 2>/dev/null || { wait "$daemon"; exit; }
	sleep 0.1
done
for customer in alice bob; do
	"$ten" inspect "notes:$customer" --config "$config" >/dev/null 2>&1 ||
		"$ten" spawn "notes:$customer" --no-wake --config "$config" >/dev/null
done

cat <<EOF

Two customers, alice and bob, share one program and nothing else.
In a browser:   http://alice.notes.localhost:8080
Or in another terminal:

  curl -d 'buy milk' http://alice.notes.localhost:8080/notes
  curl http://alice.notes.localhost:8080/notes     # alice's note
  curl http://bob.notes.localhost:8080/notes       # bob has none
  ls .cache/notes/notes/alice                      # where alice's note lies
  bin/ten ps --config $config

A process starts with the first request and stops after 30 seconds without one;
the notes stay. Ctrl-C ends it all.

EOF
# A signal interrupts the first wait; the second one waits for the orderly end.
wait "$daemon" || wait "$daemon"
