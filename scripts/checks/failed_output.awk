# Prints from a `ctest -V` log the output of the tests that did not pass, at most 150 lines each.

/^[0-9]+: / {
  id = $1 + 0
  line = $0
  sub(/^[0-9]+: ?/, "", line)
  output[id, ++lines[id]] = line
}

/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: / && !/ Passed +[0-9.]+ sec/ && !/\*\*\*Skipped/ {
  match($0, /#[0-9]+/)
  id = substr($0, RSTART + 1, RLENGTH - 1) + 0
  print "---- " $0
  for (i = (lines[id] > 150 ? lines[id] - 149 : 1); i <= lines[id]; ++i) print output[id, i]
}
