/* SPDX-License-Identifier: Apache-2.0 */
/* JSON items as aligned rows. Called by show.c, policy.c and verdicts.c. */
#include "ctl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A reason is the longest thing that is shown. */
#define CELL 512
#define COLUMNS_MAX 12

static const cJSON *reach(const cJSON *item, const char *path)
{
	char name[64];

	while (item && *path) {
		size_t n = strcspn(path, ".");

		snprintf(name, sizeof(name), "%.*s", (int)n, path);
		item = cJSON_GetObjectItemCaseSensitive(item, name);
		path += n + (path[n] == '.');
	}
	return item;
}

static void scaled(char *buf, int size, double v)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	int u = 0;

	for (; v >= 1024 && u < 4; u++)
		v /= 1024;
	snprintf(buf, (size_t)size, u ? "%.1f %s" : "%.0f %s", v, units[u]);
}

static void elapsed(char *buf, int size, double ms)
{
	double s = ms / 1000;

	/* What no clock gave must not overflow the casts below. */
	if (!(ms >= 0 && ms < 1e12))
		snprintf(buf, (size_t)size, "?");
	else if (s < 1)
		snprintf(buf, (size_t)size, "%.0fms", ms);
	else if (s < 60)
		snprintf(buf, (size_t)size, "%.1fs", s);
	else if (s < 3600)
		snprintf(buf, (size_t)size, "%.0fm%02.0fs", (double)(int)(s / 60), s - 60 * (int)(s / 60));
	else
		snprintf(buf, (size_t)size, "%.0fh%02.0fm", (double)(int)(s / 3600), (double)((int)(s / 60) % 60));
}

const char *field_text(const cJSON *item, const struct column *col, char *buf, int size)
{
	const cJSON *v = reach(item, col->field), *i;
	int n = 0;

	snprintf(buf, (size_t)size, "-");
	if (cJSON_IsString(v) && *v->valuestring) {
		snprintf(buf, (size_t)size, "%s", v->valuestring);
	} else if (cJSON_IsBool(v)) {
		snprintf(buf, (size_t)size, "%s", cJSON_IsTrue(v) ? "yes" : "no");
	} else if (cJSON_IsNumber(v)) {
		if (col->as == AS_BYTES)
			scaled(buf, size, v->valuedouble);
		else if (col->as == AS_MS)
			elapsed(buf, size, v->valuedouble);
		else
			snprintf(buf, (size_t)size, "%.0f", v->valuedouble);
	} else if (cJSON_IsArray(v)) {
		cJSON_ArrayForEach(i, v)
			if (cJSON_IsString(i) && n < size)
				n += snprintf(buf + n, (size_t)(size - n), "%s%s", n ? "," : "", i->valuestring);
	}
	/* Cut to the cell's size, the last character may be half of one. */
	text_clean(buf);
	return buf;
}

static void print_cell(const char *text, int width, bool last)
{
	if (last)
		printf("%s\n", text);
	else
		printf("%s%*s  ", text, width - text_width(text), "");
}

void table_print(const cJSON *array, const struct column *columns, int n)
{
	int width[COLUMNS_MAX] = {0};
	const cJSON *item;
	char cell[CELL];

	if (!cJSON_GetArraySize(array)) {
		printf("none\n");
		return;
	}
	for (int i = 0; i < n; i++)
		width[i] = (int)strlen(columns[i].title);
	cJSON_ArrayForEach(item, array) {
		for (int i = 0; i < n; i++) {
			int len = text_width(field_text(item, &columns[i], cell, sizeof(cell)));

			width[i] = len > width[i] ? len : width[i];
		}
	}
	for (int i = 0; i < n; i++)
		print_cell(columns[i].title, width[i], i == n - 1);
	cJSON_ArrayForEach(item, array) {
		for (int i = 0; i < n; i++)
			print_cell(field_text(item, &columns[i], cell, sizeof(cell)), width[i], i == n - 1);
	}
}
