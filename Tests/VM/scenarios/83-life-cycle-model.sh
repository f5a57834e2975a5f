# Random commands, kills at every moment of them, replaced and copied images, wiped and full runtime directories, remounts:
# after each step devices, servers, images and what list says must be what a model of them says. SEED chooses, COUNT is the
# number of rounds, each with three images of its own, and STEPS the length of each.
# kernels: 7
# vm: --file .build/qed-ublk-lifecycle
source lib.sh
cd /
# Its rules are stricter than what is known to hold. So it runs when somebody asks for it.
[[ -n ${COUNT:-} ]] || skip "only by Tests/VM/prove life-cycle"
modprobe brd rd_nr=2 rd_size=$((400 << 10))

step "${COUNT:-1} rounds of ${STEPS:-40} steps, from seed ${SEED:-1}"
status=0
options=()
eval "options=(${OPTIONS:-})"
qed-ublk-lifecycle --seed "${SEED:-1}" --rounds "${COUNT:-1}" --steps "${STEPS:-40}" "${options[@]}" || status=$?
((status == 0)) || fail "status $status; SEED, COUNT and STEPS repeat it"
