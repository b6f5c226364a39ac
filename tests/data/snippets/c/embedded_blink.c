#include "stm32f4xx.h"

#define LED_PIN 5

void delay(volatile uint32_t count)
{
    while (count--)
        __asm__("nop");
}

int main(void)
{
    RCC->AHB1ENR |= RCC_AHB1ENR_GPIOAEN;
    GPIOA->MODER |= 1u << (LED_PIN * 2);
    for (;;) {
        GPIOA->ODR ^= 1u << LED_PIN;
        delay(1000000);
    }
}
