/* prometheus_check.h - a strict reader of Prometheus' text format 0.0.4
 *
 * Source: https://prometheus.io/docs/instrumenting/exposition_formats/
 * Stricter than Prometheus: every family has HELP and TYPE in front, comes once and in one
 * piece; counters end in _total; no series comes twice; no time stamps.
 */
#ifndef VNEVA_TESTS_SUPPORT_PROMETHEUS_CHECK_H
#define VNEVA_TESTS_SUPPORT_PROMETHEUS_CHECK_H

#include "common/base/err.h"

/* ERR_FORMAT names the line. */
int prometheus_check(const char *text, struct err *err);

#endif
