# Random commands, kills at every moment of them, replaced and copied images, wiped and full runtime directories, remounts:
# after each step devices, servers, supervisors, images and what list says must be what a model of them says. SEED chooses, COUNT
# is the number of rounds, each with three images of its own, and STEPS the length of each.
# kernels: 7
# vm: --file .build/qed-ublk-lifecycle
source lib.sh
cd /
modprobe brd rd_nr=2 rd_size=$((400 << 10))

# Without COUNT, in the continuous integration: three rounds that have nearly every kind of step.
SEED=${SEED:-5} COUNT=${COUNT:-3} STEPS=${STEPS:-40}
step "$COUNT rounds of $STEPS steps, from seed $SEED"
status=0
options=()
eval "options=(${OPTIONS:-})"
qed-ublk-lifecycle --seed "$SEED" --rounds "$COUNT" --steps "$STEPS" "${options[@]}" || status=$?
((status == 0)) || fail "status $status; SEED, COUNT and STEPS repeat it"
