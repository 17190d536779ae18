/* The only file that knows ncurses. Raw mode: Ctrl-C comes in as a key, so that the
 * terminal is put right before the program ends. */
#include "jobs/client/top.h"

#include <curses.h>
#include <unistd.h>

int top_terminal_open(struct err *err)
{
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return err_set(
            err, ERR_UNSUPPORTED,
            "top needs a terminal; `vneva status`, `vneva query jobs --watch 5` "
            "and `vneva why JOB` do without");
    if (!newterm(NULL, stdout, stdin))
        return err_set(
            err, ERR_UNSUPPORTED,
            "the terminal is not known to this machine (TERM); set TERM=xterm, "
            "or use `vneva query jobs --watch 5`");
    if (!tigetstr("cup")) {
        endwin();
        return err_set(err, ERR_UNSUPPORTED,
                       "this terminal (TERM) cannot move its cursor; use `vneva query "
                       "jobs --watch 5`");
    }
    raw();
    noecho();
    nonl();
    keypad(stdscr, TRUE);
    set_escdelay(50);
    curs_set(0);
    return 0;
}

void top_terminal_close(void)
{
    endwin();
}

void top_terminal_size(int *width, int *height)
{
    getmaxyx(stdscr, *height, *width);
}

void top_terminal_show(const struct top_screen *screen)
{
    static const attr_t looks[] = {
        [TOP_PLAIN] = A_NORMAL,
        [TOP_BOLD] = A_BOLD,
        [TOP_REVERSE] = A_REVERSE,
        [TOP_DIM] = A_DIM,
    };

    erase();
    for (int i = 0; i < screen->n_lines; i++) {
        attrset(looks[screen->lines[i].look]);
        mvaddstr(i, 0, screen->lines[i].text);
    }
    attrset(A_NORMAL);
    refresh();
}

int top_terminal_key(int64_t wait_ms)
{
    int key;

    timeout((int)wait_ms);
    key = getch();
    switch (key) {
    case ERR:
    case KEY_RESIZE:
        return 0;
    case KEY_UP:
        return TOP_KEY_UP;
    case KEY_DOWN:
        return TOP_KEY_DOWN;
    case KEY_ENTER:
    case '\r':
    case '\n':
        return TOP_KEY_ENTER;
    case 27:
        return TOP_KEY_ESCAPE;
    case KEY_BACKSPACE:
    case 127:
    case '\b':
        return TOP_KEY_BACKSPACE;
    case 3: /* Ctrl-C */
        return TOP_KEY_INTERRUPT;
    default:
        return key < 0x80 ? key : TOP_KEY_OTHER;
    }
}
