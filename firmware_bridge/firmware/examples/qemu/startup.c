/* Reset and vectors of a Cortex-M3 without any vendor's library. */
#include <stdint.h>

int main(void);
void uart_receive_handler(void);
void uart_transmit_handler(void);
void reset_handler(void);

extern uint32_t _data_load, _data_start, _data_end, _bss_start, _bss_end, _stack_top;

void reset_handler(void) {
    uint32_t *from = &_data_load;
    for (uint32_t *to = &_data_start; to < &_data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = &_bss_start; to < &_bss_end;) {
        *to++ = 0;
    }
    main();
    for (;;) {
    }
}

static void hang(void) {
    for (;;) {
    }
}

static void wake(void) {} /* the tick ends a WFI, and is counted by nobody */

typedef struct {
    uint32_t *stack;
    void (*handlers[17])(void);
} vector_table;

__attribute__((section(".vectors"), used)) static const vector_table vectors = {
    &_stack_top,
    {reset_handler, hang, hang, hang, hang, hang, 0, 0, 0, 0, hang, hang, 0, hang, wake,
     /* interrupts 0 and 1 of the MPS2 boards */
     uart_receive_handler, uart_transmit_handler}};
