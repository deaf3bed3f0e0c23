# Outlives the process that started it, whatever ends that process: its standard input is a pipe that the process
# holds, and the system closes the pipe even after SIGKILL.
# Each line on the pipe is the process id of the running server; an empty line says that it was stopped.
# At the end of the pipe: stop what still runs, then remove the cluster's folder ($1).
trap '' INT TERM HUP
server=
while read -r line; do server=$line; done

alive() { [ -n "$server" ] && kill -0 "$server" 2>/dev/null; }
# stop SIGNAL TENTHS: ask, and wait until it is gone or the time is over.
stop() {
    kill -s "$1" "$server" 2>/dev/null
    left=$2
    while alive && [ "$left" -gt 0 ]; do
        sleep 0.1
        left=$((left - 1))
    done
}
alive && stop INT 100
alive && stop QUIT 50
alive && stop KILL 10

# An initdb that lost its parent may still be writing: try until the folder is gone.
left=50
until rm -rf "$1" 2>/dev/null || [ "$left" -eq 0 ]; do
    sleep 0.1
    left=$((left - 1))
done
