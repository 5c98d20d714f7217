"""`banksman bench`: what an approved run costs here, beside what the agent library alone costs on the same machine.

The floor and Banksman take turns, so that a machine that gets slower gets slower for both. Both run the same agent, the
same tools and the same scripted model (`subject`).
"""
