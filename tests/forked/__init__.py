"""The program without its seconds of imports: each process is forked from one that has imported everything.

test -> client (a script that stands for `compressnet`) -> server (has imported torch) -> fork -> the program

A client hands over its arguments, folder, environment and open files, passes signals on, and ends as the
program does; one that is killed takes the program along before the server answers again. What a test asks of
start-up itself (imports, signals while they run, process groups, limits) takes a process of its own.
"""
