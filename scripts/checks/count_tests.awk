# Reads a `ctest -V` log and prints `N passed, N failed`, summed over what each program itself
# counted: Catch2's closing lines, or a closing line `N passed, N failed` of a script. A program that
# ctest calls failed without having counted a failure (a crash, a time-out) adds one failure; one
# that passed without counting anything adds one pass.

function number_before(text, word,   parts) {
  return match(text, "[0-9]+ " word) ? substr(text, RSTART, RLENGTH) + 0 : 0
}

/^[0-9]+: / {
  id = $1 + 0
  line = $0
  sub(/^[0-9]+: ?/, "", line)
  if (line ~ /^All tests passed \([0-9]+ assertions? in [0-9]+ test cases?\)/) {
    passed[id] = number_before(line, "test case")
    failed[id] = 0
    counted[id] = 1
  } else if (line ~ /^test cases: +[0-9]+ \|/) {
    passed[id] = number_before(line, "passed")
    failed[id] = number_before(line, "failed")
    counted[id] = 1
  } else if (line ~ /^[0-9]+ passed, [0-9]+ failed$/) {
    passed[id] = number_before(line, "passed")
    failed[id] = number_before(line, "failed")
    counted[id] = 1
  }
}

/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: / {
  match($0, /#[0-9]+/)
  id = substr($0, RSTART + 1, RLENGTH - 1) + 0
  ended[id] = 1
  if ($0 ~ / Passed +[0-9.]+ sec/) {
    if (!counted[id]) passed[id] = 1
  } else if ($0 !~ /\*\*\*Skipped/ && failed[id] + 0 == 0) {
    failed[id] = 1
  }
}

END {
  for (id in ended) {
    all_passed += passed[id]
    all_failed += failed[id]
  }
  if (all_passed + all_failed == 0) all_failed = 1
  printf "%d passed, %d failed\n", all_passed, all_failed
}
