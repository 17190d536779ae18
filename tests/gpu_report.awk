# gpu_report.awk - the table and the JSON of tests/gpu.sh, of what there is so far
#
#     awk -v json=FILE -v about=TEXT [-v unjudged=REASON] -f gpu_report.awk gpu_goals.tsv RECORDS
#
# Records are those of tests/bench/bench_gpu.h, and of gpu.sh:
#     check   NAME  -  ok | failed | skipped  -  -  NOTE
#     failed  PART  vneva | peer  -  -  -  REASON     (*: every part)
#     left    PART  vneva | peer  -  -  -  REASON     not asked for, not here: nothing is wrong
# Exit status: 0, 3 a check failed or a part of ours did not end, 4 a goal is not met.
BEGIN { FS = "\t" }

function quote(text) {
    gsub(/\\/, "\\\\", text)
    gsub(/"/, "\\\"", text)
    gsub(/[\001-\037]/, " ", text)
    return "\"" text "\""
}

# The best of several sides that were measured, or "".
function best_of(key, sides,    n, i, all, best, sign) {
    best = ""
    sign = unit_of[key] == "s" || unit_of[key] == "GB" ? -1 : 1
    n = split(sides, all, ",")
    for (i = 1; i <= n; i++) {
        if (!((key, all[i]) in value))
            continue
        if (best == "" || sign * value[key, all[i]] > sign * value[key, best])
            best = all[i]
    }
    return best
}

# Why a side has no figure.
function reason_of(key, sides,    n, i, all, group, part) {
    n = split(sides, all, ",")
    for (i = 1; i <= n; i++)
        if ((key, all[i]) in none)
            return none[key, all[i]]
    group = all[1] ~ /^(vneva|own|cublaslt)$/ ? "vneva" : "peer"
    for (part in failed_reason) {
        split(part, all, SUBSEP)
        if (all[2] == group && (key == all[1] || index(key, all[1] ".") == 1))
            return failed_reason[part]
    }
    if (("*", group) in failed_reason)
        return failed_reason["*", group]
    return "nothing was said"
}

function number(x) {
    return sprintf(x >= 100 ? "%.0f" : (x >= 10 ? "%.1f" : "%.3g"), x)
}

function figure(key, side) {
    return number(value[key, side] + 0) " " unit_of[key]
}

FILENAME == ARGV[1] {
    if ($0 ~ /^#/ || NF < 6)
        next
    n_goals++
    goal_key[n_goals] = $1; goal_title[n_goals] = $2; goal_side[n_goals] = $3
    goal_others[n_goals] = $4; goal_form[n_goals] = $5; goal[n_goals] = $6
    next
}
$1 == "check" {
    n_checks++
    check_name[n_checks] = $2; check_verdict[n_checks] = $4; check_note[n_checks] = $7
    n_wrong += $4 == "failed"
}
$1 == "figure" {
    if (!(($2, $3) in value)) {
        n_figures++
        figure_key[n_figures] = $2; figure_side[n_figures] = $3
    }
    value[$2, $3] = $4; unit_of[$2] = $5; spread[$2, $3] = $6; note[$2, $3] = $7
}
$1 == "none" { none[$2, $3] = $7 }
$1 == "failed" || $1 == "left" {
    if (($2, $3) in failed_reason)
        next # its first reason is the nearest to what happened
    failed_reason[$2, $3] = $7
    if ($1 == "left")
        next
    n_failed_parts++
    failed_part[n_failed_parts] = $2; failed_group[n_failed_parts] = $3
    failed_text[n_failed_parts] = $7
    n_wrong += $3 == "vneva"
}

function judge(i,    key, side, other) {
    key = goal_key[i]; side = goal_side[i]; other = best_of(key, goal_others[i])
    ratio[i] = ""; why[i] = ""; other_side[i] = other
    if (other != "" && (key, side) in value && value[key, other] + 0 > 0)
        ratio[i] = value[key, side] / value[key, other]
    if (!((key, side) in value)) {
        why[i] = reason_of(key, side)
        return "not measured"
    }
    if (value[key, side] !~ /^-?[0-9]/) {
        why[i] = "the figure is no finite number"
        return "not measured"
    }
    if (other == "" && goal_others[i] != "-")
        why[i] = "no peer: " reason_of(key, goal_others[i])
    if (goal_form[i] == "-")
        return "measured"
    if (unjudged != "") {
        why[i] = unjudged
        return "not judged"
    }
    if (goal_form[i] == "ratio" && ratio[i] == "")
        return "not judged"
    if (goal_form[i] == "ratio")
        return ratio[i] >= goal[i] + 0 ? "met" : "not met"
    return value[key, side] >= goal[i] + 0 ? "met" : "not met"
}

function comma(i) { return i > 1 ? "," : "" }
function or_null(x) { return x ~ /^-?[0-9]/ ? x : "null" }

function write_json(    i, key) {
    printf "{\"about\": %s,\n\"checks\": [", quote(about) >json
    for (i = 1; i <= n_checks; i++)
        printf "%s\n {\"check\": %s, \"verdict\": %s, \"note\": %s}", comma(i),
            quote(check_name[i]), quote(check_verdict[i]), quote(check_note[i]) >json
    printf "],\n\"figures\": [" >json
    for (i = 1; i <= n_figures; i++) {
        key = figure_key[i] SUBSEP figure_side[i]
        printf "%s\n {\"key\": %s, \"side\": %s, \"value\": %s, \"unit\": %s, \"spread\": %s, \"note\": %s}",
            comma(i), quote(figure_key[i]), quote(figure_side[i]),
            or_null(value[key]), quote(unit_of[figure_key[i]]),
            or_null(spread[key]), quote(note[key]) >json
    }
    printf "],\n\"goals\": [" >json
    for (i = 1; i <= n_goals; i++)
        printf "%s\n {\"key\": %s, \"title\": %s, \"side\": %s, \"other\": %s, \"ratio\": %s, \"form\": %s, \"goal\": %s, \"verdict\": %s, \"why\": %s}",
            comma(i), quote(goal_key[i]), quote(goal_title[i]),
            quote(goal_side[i]), quote(other_side[i]), or_null(ratio[i]),
            quote(goal_form[i]), or_null(goal[i]), quote(verdict[i]),
            quote(why[i]) >json
    printf "],\n\"failed\": [" >json
    for (i = 1; i <= n_failed_parts; i++)
        printf "%s\n {\"part\": %s, \"side\": %s, \"reason\": %s}", comma(i),
            quote(failed_part[i]), quote(failed_group[i]), quote(failed_text[i]) >json
    printf "],\n\"n_wrong\": %d, \"n_missed\": %d}\n", n_wrong, n_missed >json
    close(json)
}

function print_goal(i,    key, side, has, ours, around, other, times, least, words) {
    key = goal_key[i]; side = goal_side[i]; has = (key, side) in value
    verdict[i] = judge(i)
    n_missed += verdict[i] == "not met"
    ours = has ? figure(key, side) : ""
    around = has && spread[key, side] != "-" ? 100 * spread[key, side] : ""
    if (around != "")
        around = sprintf("%.1f %%", around)
    if (other_side[i] != "")
        other = other_side[i] " " number(value[key, other_side[i]] + 0)
    times = ratio[i] == "" ? "" : sprintf("%.2f", ratio[i])
    least = goal_form[i] == "-" ? "" : ">= " goal[i]
    words = why[i] != "" ? ": " why[i] : ""
    if (words == "" && note[key, side] != "")
        words = "; " note[key, side]
    printf "| %s | %s | %s | %s | %s | %s | %s%s |\n", goal_title[i], ours, around, other,
        times, least, verdict[i], words
}

END {
    print about "\n"
    print "| check | verdict | note |\n|---|---|---|"
    for (i = 1; i <= n_checks; i++) {
        shown = check_verdict[i] == "failed" ? "**failed**" : check_verdict[i]
        printf "| %s | %s | %s |\n", check_name[i], shown, check_note[i]
    }
    print "\n| what | figure | spread | beside | ratio | goal | verdict |"
    print "|---|---:|---:|---:|---:|---:|---|"
    for (i = 1; i <= n_goals; i++)
        print_goal(i)
    for (i = 1; i <= n_failed_parts; i++)
        if (failed_group[i] == "vneva")
            printf "\n%s did not end well: %s\n", failed_part[i], failed_text[i]
    printf "\n%d checks and parts failed, %d goals not met\n", n_wrong, n_missed
    if (json != "")
        write_json()
    exit n_wrong > 0 ? 3 : (n_missed > 0 ? 4 : 0)
}
